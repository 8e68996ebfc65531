# SPDX-License-Identifier: GPL-3.0-or-later
"""The preferences: engines, the torch runtime, model folders."""
