# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements: vertex errors with controls, and the bundled model's lip sync."""
