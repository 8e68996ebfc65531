# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings with phone times and texts: aligned, synthesised, prepared, augmented and cut into batches."""
