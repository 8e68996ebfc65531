# SPDX-License-Identifier: GPL-3.0-or-later
"""Inference in a process of its own, so that Blender stays responsive and survives a crash.

`client` and `environment` run inside Blender and need the standard library only; `boot` and `serve` are the worker.
Both sides share `protocol`.
"""
