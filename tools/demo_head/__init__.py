# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo head: a generator (numpy) and its result, ``demo_head.npz``."""
