# SPDX-License-Identifier: GPL-3.0-or-later
"""A mypy plugin that corrects the stubs of bpy (fake-bpy-module); pyproject.toml loads it.

The stubs declare every pointer as optional, and lack the add-on's own properties and `in` on data-blocks. A correction
here replaces an ignored error at every use.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.nodes import MDEF, SymbolTableNode, Var
from mypy.plugin import AttributeContext, ClassDefContext, Plugin
from mypy.types import AnyType, Type, TypeOfAny, UnionType, get_proper_type

# Pointers that are never None where the add-on reads them without a check.
NEVER_NONE = {
    f"bpy.types.{name}"
    for name in (
        "Context.preferences Context.scene Context.view_layer Context.window_manager "
        "FCurve.driver Key.reference_key Key.user Mesh.shape_keys Object.pose "
        "AddonPreferences.layout Operator.layout Panel.layout"
    ).split()
}
# Properties that the add-on registers, and attributes that the stubs lack; all have the type Any.
MISSING = {
    "bpy.types.Scene": ("wav2sem", "wav2sem_upper_face", "wav2sem_tolerance_mm"),
    "bpy.types.Object": ("wav2sem_mapping", "wav2sem_mapping_active", "wav2sem_mapping_channels"),
    "bpy.types.WindowManager": ("wav2sem_take", "wav2sem_take_index"),
    "bpy.types.ID": ("__contains__",),
    "bpy.types.ActionStrip": ("channelbag",),
    "bpy_extras.io_utils.ExportHelper": ("filename_ext", "filepath"),
    "bpy_extras.io_utils.ImportHelper": ("filepath",),
}


class BpyPlugin(Plugin):
    """Narrows and adds attributes of Blender's classes."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """Narrow the type of an attribute. The data of nearly every object that the add-on touches is a mesh."""
        if fullname == "bpy.types.Object.data":
            return _only_mesh
        return _without_none if fullname in NEVER_NONE else None

    def get_customize_class_mro_hook(self, fullname: str) -> Callable[[ClassDefContext], None] | None:
        """Add the missing attributes of a class."""
        return _add_missing if fullname in MISSING else None


def _without_none(context: AttributeContext) -> Type:
    kind = get_proper_type(context.default_attr_type)
    if not isinstance(kind, UnionType):
        return kind
    return UnionType.make_union([item for item in kind.items if str(get_proper_type(item)) != "None"])


def _only_mesh(context: AttributeContext) -> Type:
    kind = get_proper_type(context.default_attr_type)
    items = kind.items if isinstance(kind, UnionType) else [kind]
    return next((item for item in items if str(item) == "bpy.types.Mesh"), kind)


def _add_missing(context: ClassDefContext) -> None:
    info = context.cls.info
    for name in MISSING[info.fullname]:
        attribute = Var(name, AnyType(TypeOfAny.special_form))
        attribute.info = info
        attribute._fullname = f"{info.fullname}.{name}"
        info.names.setdefault(name, SymbolTableNode(MDEF, attribute))


def plugin(_version: str) -> type[Plugin]:
    """What mypy asks for."""
    return BpyPlugin
