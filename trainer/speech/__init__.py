# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings with phone times and texts: aligned or synthesised, prepared, augmented, cut into batches."""
