# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures: vertex errors with controls, and the bundled model's lip sync."""
