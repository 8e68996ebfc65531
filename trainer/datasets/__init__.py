# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of published data sets, all with one interface."""
