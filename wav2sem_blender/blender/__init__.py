# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on: the only place that imports bpy. It collects settings, runs the worker and writes curves."""
