# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: engines, the torch runtime, model folders."""
