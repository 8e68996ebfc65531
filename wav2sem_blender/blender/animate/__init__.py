# SPDX-License-Identifier: GPL-3.0-or-later
"""MAIN PATH: the settings of a run, the run, and the command for a terminal."""
