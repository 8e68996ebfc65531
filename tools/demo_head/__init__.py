# SPDX-License-Identifier: GPL-3.0-or-later
"""Generates the demo head with NumPy: ``python -m tools.demo_head`` writes ``demo_head.npz``."""
