# SPDX-License-Identifier: GPL-3.0-or-later
"""Inference and long tasks in processes of their own, so that Blender stays responsive and survives a crash.

Inside Blender: `supervisor` runs a child process, `client` the worker, `task` anything else. Inside the child: `boot`
is the entry point, `child` talks to the supervisor, `serve` is the worker, `probe` and `install` are tasks.
Only `serve` and `probe` use the pipeline and its libraries.
"""
