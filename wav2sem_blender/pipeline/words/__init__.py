# SPDX-License-Identifier: GPL-3.0-or-later
"""Words: a transcript is read, pronounced and aligned with what the ear heard; the result is a `Track` to edit.

`transcript.py` -> `pronunciation.py` -> `align.py` -> `track.py`. NumPy only, so Blender's own process may use it.
"""
