# SPDX-License-Identifier: GPL-3.0-or-later
"""Animate a head of a .blend file from speech and save the result, without the interface.

    blender -b scene.blend --python docs/examples/animate_from_speech.py -- \
        --audio speech.wav --object Head --output animated.blend

It uses the installed extension, or else this file's checkout. The exit status is 0 only if keys were written. For
simple batches `blender -b scene.blend --command wav2sem …` is shorter. Copy this script if you need more than one call:
several heads, several recordings, a render afterwards.
"""

import argparse
import sys
from pathlib import Path

import bpy


def main() -> int:
    """Animate, save, and return the exit status."""
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    parser = argparse.ArgumentParser(prog="animate_from_speech.py")
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--object", required=True, help="name of the mesh")
    parser.add_argument("--output", type=Path, required=True, help="the .blend file to write")
    options = parser.parse_args(arguments)

    use_addon()
    try:
        bpy.ops.wav2sem.animate(filepath=str(options.audio.absolute()), object=options.object)
    except RuntimeError as error:  # the operator's report
        print(error, file=sys.stderr)
        return 1

    action = bpy.data.objects[options.object].data.shape_keys.animation_data.action
    first, last = action.curve_frame_range
    print(f'The action "{action.name}" covers the frames {first:g} to {last:g}.')
    bpy.ops.wm.save_as_mainfile(filepath=str(options.output.absolute()))
    return 0


def use_addon() -> None:
    """Register the add-on from this checkout if Blender has not enabled it."""
    if not hasattr(bpy.types, "WAV2SEM_OT_animate"):
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        import wav2sem_blender

        wav2sem_blender.register()


if __name__ == "__main__":
    sys.exit(main())
