# SPDX-License-Identifier: GPL-3.0-or-later
"""The Export panel: the animation of the chosen face as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty
from bpy_extras.io_utils import ExportHelper

from ...errors import Text, UserError
from ...pipeline.curve_table import save_table
from ...pipeline.motion import LIVE_LINK_FPS
from ...pipeline.retarget import resample
from .. import compat
from ..scene import exports
from ..translations import CONTEXT
from . import status
from .widgets import AddonOperator, SpeechPanel, blocked_reason, chosen_face, draw_text, face_of

LAYOUTS = (
    ("TABLE", "Table", "Time, frame, and one column per playing curve"),
    ("LIVE_LINK", "Live Link Face", "The columns of the Live Link Face app; every curve needs an ARKit name"),
)

APPLY: dict[str, Any] = {
    "name": "Apply Modifiers",
    "description": "Apply Mirror, Subdivision Surface and the like to every shape key. Without it the file is smaller",
    "default": True,
}


class _ExportOperator(AddonOperator, ExportHelper):
    """Base of the buttons: a file browser, the chosen face, and error reports."""

    bl_options: ClassVar = {"REGISTER"}

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Why nothing can be exported in this format."""
        return export_disabled_reason(context) or cls.missing()

    @classmethod
    def missing(cls) -> str:
        """What the format needs of Blender; empty when nothing is missing."""
        return ""

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> compat.Result:  # type: ignore[override]
        """Suggest the action's name."""
        if not self.filepath:
            folder = Path(bpy.data.filepath).parent if bpy.data.filepath else Path.home()
            name = bpy.path.clean_name(exports.playing(face_of(context))[0].action.name)
            self.filepath = str(folder / f"{name}{self.filename_ext}")
        return super().invoke(context, event)

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Write the file."""
        path = Path(bpy.path.ensure_ext(bpy.path.abspath(self.filepath), self.filename_ext)).absolute()
        face = chosen_face(context)
        try:
            notes = self.write(context, face, path)
        except (OSError, UserError) as error:
            return self._failed(error)
        first, last = exports.frame_range(face)
        saved = Text("Saved {path}, frames {first} to {last}", path=path, first=first, last=last)
        self.tell({"INFO"}, Text.joined((saved, *notes), ". ") if notes else saved)
        return {"FINISHED"}

    def write(self, context: bpy.types.Context, face: bpy.types.Object, path: Path) -> list[Text]:
        """Write the file; returns what to tell about it, raises OSError or UserError."""
        raise NotImplementedError


class WAV2SEM_OT_export_csv(_ExportOperator, bpy.types.Operator):
    """Export the curves as a table with one row per frame, with ARKit names where the key mapping has them"""

    bl_idname = "wav2sem.export_csv"
    bl_label = "CSV"

    filename_ext = ".csv"
    filter_glob: StringProperty(default="*.csv", options={"HIDDEN"})  # type: ignore[valid-type]
    columns: EnumProperty(  # type: ignore[valid-type]
        name="Columns", description="Columns of the table", items=LAYOUTS, translation_context=CONTEXT
    )

    def write(self, context: bpy.types.Context, face: bpy.types.Object, path: Path) -> list[Text]:
        """Write the table."""
        motion = exports.sampled(face, context.scene)
        if self.columns == "LIVE_LINK":
            resample(motion, LIVE_LINK_FPS).save(path)  # as the app writes it
        else:
            save_table(motion, path, exports.frame_range(face)[0])
        return []


class WAV2SEM_OT_export_npz(_ExportOperator, bpy.types.Operator):
    """Export the curves as NumPy arrays, which the command line and Python read as a Motion"""

    bl_idname = "wav2sem.export_npz"
    bl_label = "NPZ"

    filename_ext = ".npz"
    filter_glob: StringProperty(default="*.npz", options={"HIDDEN"})  # type: ignore[valid-type]

    def write(self, context: bpy.types.Context, face: bpy.types.Object, path: Path) -> list[Text]:
        """Write the motion."""
        exports.sampled(face, context.scene).save(path)
        return []


class WAV2SEM_OT_export_gltf(_ExportOperator, bpy.types.Operator):
    """Export the face and its parts with their shape keys and animation, for game engines and the web"""

    bl_idname = "wav2sem.export_gltf"
    bl_label = "glTF"

    filename_ext = ".glb"
    filter_glob: StringProperty(default="*.glb", options={"HIDDEN"})  # type: ignore[valid-type]
    apply_modifiers: BoolProperty(**APPLY)  # type: ignore[valid-type]

    @classmethod
    def missing(cls) -> str:
        """Blender's glTF add-on."""
        enabled = "io_scene_gltf2" in bpy.context.preferences.addons
        return "" if enabled else "Enable the add-on glTF 2.0 format in the preferences first"

    def write(self, context: bpy.types.Context, face: bpy.types.Object, path: Path) -> list[Text]:
        """Let Blender write the file."""
        return exports.write_gltf(context, face, path, apply_modifiers=self.apply_modifiers)


class WAV2SEM_OT_export_fbx(_ExportOperator, bpy.types.Operator):
    """Export the face and its parts with their shape keys and animation, for Maya, Unreal, Unity and the like"""

    bl_idname = "wav2sem.export_fbx"
    bl_label = "FBX"

    filename_ext = ".fbx"
    filter_glob: StringProperty(default="*.fbx", options={"HIDDEN"})  # type: ignore[valid-type]
    apply_modifiers: BoolProperty(**APPLY)  # type: ignore[valid-type]

    @classmethod
    def missing(cls) -> str:
        """Blender's FBX add-on."""
        enabled = "io_scene_fbx" in bpy.context.preferences.addons
        return "" if enabled else "Enable the add-on FBX format in the preferences first"

    def write(self, context: bpy.types.Context, face: bpy.types.Object, path: Path) -> list[Text]:
        """Let Blender write the file."""
        return exports.write_fbx(context, face, path, apply_modifiers=self.apply_modifiers)


class WAV2SEM_OT_export_usd(_ExportOperator, bpy.types.Operator):
    """Export the face and its parts with blend shapes and animation, for Omniverse, Houdini and the like"""

    bl_idname = "wav2sem.export_usd"
    bl_label = "USD"

    filename_ext = ".usdc"
    filter_glob: StringProperty(default="*.usdc", options={"HIDDEN"})  # type: ignore[valid-type]
    apply_modifiers: BoolProperty(**APPLY)  # type: ignore[valid-type]

    @classmethod
    def missing(cls) -> str:
        """USD, which some builds leave out."""
        return "" if bpy.app.build_options.usd else "This build of Blender has no USD"

    def write(self, context: bpy.types.Context, face: bpy.types.Object, path: Path) -> list[Text]:
        """Let Blender write the file."""
        return exports.write_usd(context, face, path, apply_modifiers=self.apply_modifiers)


class WAV2SEM_OT_export_alembic(_ExportOperator, bpy.types.Operator):
    """Export the moving vertices of the face and its parts, for programs without shape keys"""

    bl_idname = "wav2sem.export_alembic"
    bl_label = "Alembic"

    filename_ext = ".abc"
    filter_glob: StringProperty(default="*.abc", options={"HIDDEN"})  # type: ignore[valid-type]

    @classmethod
    def missing(cls) -> str:
        """Alembic, which some builds leave out."""
        return "" if bpy.app.build_options.alembic else "This build of Blender has no Alembic"

    def write(self, context: bpy.types.Context, face: bpy.types.Object, path: Path) -> list[Text]:
        """Let Blender write the file."""
        exports.write_alembic(context, face, path)
        return []


class WAV2SEM_PT_export(SpeechPanel, bpy.types.Panel):
    """Files for other programs."""

    bl_label = "Export"
    bl_order = 4
    bl_options: ClassVar = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """What is exported, and a button per format."""
        layout = self.layout
        reason = export_disabled_reason(context)
        if reason:
            draw_text(layout, context, reason, "INFO")
        else:
            first, last = exports.frame_range(chosen_face(context))
            names = ", ".join(take.action.name for take in reversed(exports.playing(face_of(context))))
            draw_text(
                layout,
                context,
                Text("{names}, frames {first} to {last}", names=names, first=first, last=last),
                "ACTION",
            )
        for title, kinds in (
            ("Curves", (WAV2SEM_OT_export_csv, WAV2SEM_OT_export_npz)),
            ("Character", (WAV2SEM_OT_export_gltf, WAV2SEM_OT_export_fbx)),
            ("", (WAV2SEM_OT_export_usd, WAV2SEM_OT_export_alembic)),
        ):
            split = layout.split(factor=0.3)
            split.label(text=title)
            row = split.row(align=True)
            for kind in kinds:
                row.operator(kind.bl_idname, text=f"{kind.bl_label}…")


def export_disabled_reason(context: bpy.types.Context) -> str:
    """Why nothing can be exported; empty when the face plays something."""
    if reason := status.run_disabled_reason(context):
        return reason
    face = face_of(context)
    if face is None:
        return blocked_reason(face)
    if not exports.playing(face):
        return Text('"{face}" plays no speech animation; animate it first', face=face.name)
    return "" if context.mode == "OBJECT" else "Return to Object Mode first"


CLASSES = (
    WAV2SEM_OT_export_csv,
    WAV2SEM_OT_export_npz,
    WAV2SEM_OT_export_gltf,
    WAV2SEM_OT_export_fbx,
    WAV2SEM_OT_export_usd,
    WAV2SEM_OT_export_alembic,
    WAV2SEM_PT_export,
)
