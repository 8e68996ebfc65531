# SPDX-License-Identifier: GPL-3.0-or-later
"""Wav2Sem for Blender: speech goes in, named shape-key curves come out.

`pipeline` is the model and needs no Blender, `worker` runs it in its own process, `blender` is the add-on. Importing
this package imports none of them: Blender calls `register`, scripts import `wav2sem_blender.pipeline`.
"""


def register() -> None:
    """Add the operators, panels, preferences and the command to Blender."""
    from .blender import registration

    registration.register()


def unregister() -> None:
    """Remove everything that `register` added, and end the worker."""
    from .blender import registration

    registration.unregister()
