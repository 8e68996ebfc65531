# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs beside the interface: threads, child processes, and the redraw of what shows them."""
