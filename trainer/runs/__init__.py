# SPDX-License-Identifier: GPL-3.0-or-later
"""A run: its folder, processes and checkpoints, the order of its batches, and the results of earlier runs."""
