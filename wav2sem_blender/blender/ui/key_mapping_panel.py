# SPDX-License-Identifier: GPL-3.0-or-later
"""The Key Mapping panel: guess which shape key plays which channel, correct it, save and load it."""

from __future__ import annotations

from typing import Any, ClassVar

import bpy
from bpy.props import StringProperty
from bpy_extras.io_utils import ExportHelper, ImportHelper

from ...errors import Text, UserError
from ...pipeline.face_names import KeyMap, Row
from .. import compat
from ..scene import controls, key_mapping
from ..tasks.task import running_task
from ..translations import CONTEXT
from .widgets import AddonOperator, FaceSubPanel, blocked_reason, chosen_face, draw_text, face_of


class _MappingOperator(AddonOperator):
    """Base of the buttons, which work on the face."""

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Why the mapping cannot be changed."""
        face = face_of(context)
        return blocked_reason(face) or cls.missing(face)  # type: ignore[arg-type]

    @classmethod
    def missing(cls, face: bpy.types.Object) -> str:
        """What the button needs beyond a face; empty when nothing is missing."""
        return ""


class WAV2SEM_OT_guess_mapping(_MappingOperator, bpy.types.Operator):
    """Fill the table from the names of the shape keys, replacing its rows"""

    bl_idname = "wav2sem.guess_mapping"
    bl_label = "Guess"

    @classmethod
    def missing(cls, face: bpy.types.Object) -> str:
        """Shape keys, or a rig."""
        has_any = key_mapping.key_names(face) or controls.rig_of(face) is not None
        return "" if has_any else Text('"{face}" has no shape keys', face=face.name)

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Store the guess."""
        face = chosen_face(context)
        found = key_mapping.guessed(face)
        if not found.rows:
            circle = next(iter(key_mapping.problems(face, found)[1:]), "")
            return self._failed(
                circle or "None of the shape keys has a known name. Add rows by hand, or load a mapping."
            )
        key_mapping.store(face, found)
        self.tell({"INFO"}, found.summary())
        return {"FINISHED"}


class WAV2SEM_OT_add_mapping_row(_MappingOperator, bpy.types.Operator):
    """Add a row. A channel may move several keys, and a key may follow several channels, which add up"""

    bl_idname = "wav2sem.add_mapping_row"
    bl_label = "Add Row"

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Add it at the end and select it."""
        face = chosen_face(context)
        face.wav2sem_mapping.add()
        face.wav2sem_mapping_active = len(face.wav2sem_mapping) - 1
        return {"FINISHED"}


class WAV2SEM_OT_remove_mapping_row(_MappingOperator, bpy.types.Operator):
    """Remove the selected row. While the table is empty, keys are mapped by name"""

    bl_idname = "wav2sem.remove_mapping_row"
    bl_label = "Remove Row"

    @classmethod
    def missing(cls, face: bpy.types.Object) -> str:
        """A row."""
        return "" if key_mapping.stored(face) else "The table has no rows"

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Remove it and select its neighbour."""
        face = chosen_face(context)
        rows = face.wav2sem_mapping
        index = min(face.wav2sem_mapping_active, len(rows) - 1)
        rows.remove(index)
        face.wav2sem_mapping_active = max(0, min(index, len(rows) - 1))
        return {"FINISHED"}


class WAV2SEM_OT_clear_mapping(_MappingOperator, bpy.types.Operator):
    """Remove all rows. While the table is empty, keys are mapped by name"""

    bl_idname = "wav2sem.clear_mapping"
    bl_label = "Clear"

    missing = WAV2SEM_OT_remove_mapping_row.missing

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Empty the table."""
        key_mapping.store(chosen_face(context), KeyMap(rows=()))
        return {"FINISHED"}


class WAV2SEM_OT_save_mapping(_MappingOperator, bpy.types.Operator, ExportHelper):
    """Save the mapping in use to a file, for other characters with the same keys"""

    bl_idname = "wav2sem.save_mapping"
    bl_label = "Save Mapping"
    bl_options: ClassVar = {"REGISTER"}

    filename_ext = ".json"
    filter_glob: StringProperty(default="*.json", options={"HIDDEN"})  # type: ignore[valid-type]

    @classmethod
    def missing(cls, face: bpy.types.Object) -> str:
        """A mapping."""
        return "" if key_mapping.in_use(face).rows else "There is no mapping to save; press Guess, or add rows"

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Write the file."""
        try:
            key_mapping.in_use(chosen_face(context)).save(bpy.path.abspath(self.filepath))
        except OSError as error:
            return self._failed(error)
        self.tell({"INFO"}, Text("Saved {path}", path=self.filepath))
        return {"FINISHED"}


class WAV2SEM_OT_load_mapping(_MappingOperator, bpy.types.Operator, ImportHelper):
    """Load a mapping from a file, replacing the rows of the table"""

    bl_idname = "wav2sem.load_mapping"
    bl_label = "Load Mapping"

    filename_ext = ".json"
    filter_glob: StringProperty(default="*.json", options={"HIDDEN"})  # type: ignore[valid-type]

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Read the whole file before replacing anything."""
        face = chosen_face(context)
        try:
            loaded = KeyMap.load(bpy.path.abspath(self.filepath))
        except (OSError, UserError) as error:
            return self._failed(error)
        key_mapping.store(face, loaded)
        for problem in key_mapping.problems(face, loaded):
            self.tell({"WARNING"}, problem)
        return {"FINISHED"}


class WAV2SEM_UL_mapping(bpy.types.UIList):
    """The rows of the table."""

    def draw_item(  # type: ignore[override]  # Blender passes the arguments by position
        self,
        _context: bpy.types.Context,
        layout: bpy.types.UILayout,
        data: Any,
        row: Any,
        _icon: int,
        _active_data: Any,
        _active_name: str,
    ) -> None:
        """Channel and key, once where they have one name, as the list is narrow. A missing key is marked."""
        present = row.key in key_mapping.playable(data.id_data, [Row("", row.key)])
        words = controls.listed_words([row.key])[0]
        if row.channel != row.key:
            layout = layout.split(factor=0.5)
            layout.label(text=row.channel, translate=False)
        text = words if row.gain == 1.0 else f"{row.gain:.3g} × {words}"
        layout.label(text=text, translate=False, icon="NONE" if present else "ERROR")

    def filter_items(  # type: ignore[override]  # lists are as good as Blender's arrays
        self, _context: bpy.types.Context, data: Any, name: str
    ) -> tuple[list[int], list[int]]:
        """Search the channels and keys."""
        wanted = self.filter_name.lower()
        rows = getattr(data, name)
        if not wanted:
            return [], []
        shown = [self.bitflag_filter_item * (wanted in f"{row.channel} {row.key}".lower()) for row in rows]
        return shown, []


class WAV2SEM_PT_key_mapping(FaceSubPanel, bpy.types.Panel):
    """Which shape key plays which channel."""

    bl_label = "Key Mapping"
    bl_order = 0
    bl_options: ClassVar = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the table and its problems."""
        layout, face = self.layout, face_of(context)
        layout.enabled = running_task() is None
        if face is None:
            draw_text(layout, context, blocked_reason(face), "INFO")
            return
        row = layout.row(align=True)
        row.operator(WAV2SEM_OT_guess_mapping.bl_idname, icon="VIEWZOOM")
        row.operator(WAV2SEM_OT_load_mapping.bl_idname, text="Load", text_ctxt=CONTEXT, icon="FILE_FOLDER")
        row.operator(WAV2SEM_OT_save_mapping.bl_idname, text="Save", text_ctxt=CONTEXT, icon="FILE_TICK")
        self._draw_table(layout, context, face)

    @staticmethod
    def _draw_table(layout: bpy.types.UILayout, context: bpy.types.Context, face: bpy.types.Object) -> None:
        rows, key_map = face.wav2sem_mapping, key_mapping.stored(face)
        row = layout.row()
        row.template_list("WAV2SEM_UL_mapping", "", face, "wav2sem_mapping", face, "wav2sem_mapping_active", rows=4)
        buttons = row.column(align=True)
        buttons.operator(WAV2SEM_OT_add_mapping_row.bl_idname, text="", icon="ADD")
        buttons.operator(WAV2SEM_OT_remove_mapping_row.bl_idname, text="", icon="REMOVE")
        buttons.separator()
        buttons.operator(WAV2SEM_OT_clear_mapping.bl_idname, text="", icon="X")
        if key_map is None:
            draw_text(layout, context, "Empty: keys are mapped by name", "INFO")
            return
        column = layout.column()
        column.use_property_split, column.use_property_decorate = True, False
        column.prop(face, "wav2sem_mapping_channels")
        rig = controls.rig_of(face)
        column.prop(face, "wav2sem_rig", placeholder=rig.name if rig is not None else "")
        if face.wav2sem_mapping_active < len(rows):
            active = rows[face.wav2sem_mapping_active]
            column.prop(active, "channel")
            _draw_target(column, face, active)
            column.prop(active, "preview", slider=True)
        for problem in key_mapping.problems(face, key_map):
            draw_text(layout, context, problem, "ERROR")


def _draw_target(column: bpy.types.UILayout, face: bpy.types.Object, row: Any) -> None:
    """What plays the channel, and how far it moves."""
    rig = controls.rig_of(face)
    column.prop(row, "kind")
    if row.kind == "KEY":
        if face.data.shape_keys:
            column.prop_search(row, "key", face.data.shape_keys, "key_blocks")
    elif rig is not None and rig.pose is not None:
        column.prop_search(row, "bone", rig.pose, "bones")
    if row.kind == "BONE":
        column.prop(row, "axis")
    if row.kind == "PROPERTY":
        column.prop(row, "property")
    column.prop(row, "angle" if row.kind == "BONE" and row.axis.startswith("rotation") else "gain")


CLASSES = (
    WAV2SEM_OT_guess_mapping,
    WAV2SEM_OT_add_mapping_row,
    WAV2SEM_OT_remove_mapping_row,
    WAV2SEM_OT_clear_mapping,
    WAV2SEM_OT_save_mapping,
    WAV2SEM_OT_load_mapping,
    WAV2SEM_UL_mapping,
    WAV2SEM_PT_key_mapping,
)
