# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures and distances: near-homophones, mouths in slow motion, one report."""
