# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks: what runs while the user works. `task` is the base; threads, child processes and the redraw are beside it."""
