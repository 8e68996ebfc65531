# SPDX-License-Identifier: GPL-3.0-or-later
"""Preparation, training loops and export: one module per verb."""
