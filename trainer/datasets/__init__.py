# SPDX-License-Identifier: GPL-3.0-or-later
"""Data sets as they are handed out, each behind one way to read it."""
