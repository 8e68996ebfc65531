# SPDX-License-Identifier: GPL-3.0-or-later
"""Panels and operators of the Speech tab, one file a panel."""
