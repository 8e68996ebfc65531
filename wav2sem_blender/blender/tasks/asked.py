# SPDX-License-Identifier: GPL-3.0-or-later
"""Which paths the user has asked for in this session.

A .blend file of a stranger names sounds and models. A look at such a path can leave the machine: a Windows share gets
the user's name and hashed password from whoever asks it. So panels, which are drawn without a click, open only what the
user has chosen or acted on. In background mode nothing is drawn, and whoever started Blender has asked.
"""

from __future__ import annotations

import os

import bpy

from ...errors import UserError

_asked: set[str] = set()


class NotAskedError(UserError):
    """Nobody has asked for this path yet."""


def ask(path: str, library: bpy.types.Library | None = None) -> None:
    """The user has chosen a path, as Blender stores it, or acted on it."""
    _asked.add(_absolute(path, library))


def is_asked(path: str, library: bpy.types.Library | None = None) -> bool:
    """Whether a path may be opened without a click; looks at no disk."""
    return _is_unattended() or _absolute(path, library) in _asked


def check_asked(path: str, library: bpy.types.Library | None = None) -> None:
    """Raise NotAskedError unless `is_asked`."""
    if not is_asked(path, library):
        raise NotAskedError("This file names {path}. It is opened when you click a button.", path=path)


def _is_unattended() -> bool:
    return bpy.app.background


def _absolute(path: str, library: bpy.types.Library | None) -> str:
    return os.path.normpath(bpy.path.abspath(path, library=library))
