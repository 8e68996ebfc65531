# SPDX-License-Identifier: GPL-3.0-or-later
"""The chosen sound: where it comes from, its samples for the worker, what the panel says of it, playback."""
