# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves of the bundled model's channels, from filmed lips and from phone times, and training's changes to them."""
