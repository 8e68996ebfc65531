# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves of the bundled model's channels: from filmed lips, from phone times, and what training asks of them."""
