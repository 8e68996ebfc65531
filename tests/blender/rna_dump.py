# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads every property of every data-block with Python, to compare files where saved bytes cannot be compared.

Blender 5.1 and 5.2 save a scrambled address with some layers, so every save of a file has other bytes.
"""

from typing import Any

import bpy
import idprop

# The interface is not part of a scene, and 4.5 crashes if the cursor of an editor without a window is read.
INTERFACE = ("screens", "workspaces", "window_managers")

# Reading an attribute changes its "storage_type" (5.1); a depsgraph is derived data.
UNCOMPARED = ("rna_type", "id_data", "storage_type", "depsgraph")


def dump() -> dict[str, Any]:
    """The properties of every data-block, nested. One inside another is only named, so that each appears once."""
    properties = [prop.identifier for prop in bpy.data.bl_rna.properties if prop.type == "COLLECTION"]
    collections = [name for name in properties if name not in INTERFACE]
    blocks = [block for name in collections for block in getattr(bpy.data, name)]
    return {repr(block): {**_struct(block, depth=0), "custom": _custom(block)} for block in blocks}


def _struct(struct: Any, depth: int) -> dict[str, Any]:
    names = [prop.identifier for prop in struct.bl_rna.properties]
    return {name: _value(struct, name, depth) for name in names if name not in UNCOMPARED}


def _value(struct: Any, name: str, depth: int) -> Any:
    prop = struct.bl_rna.properties[name]
    try:
        value = getattr(struct, name)
    except (AttributeError, RuntimeError) as error:  # a property that has no value in this state
        return str(error)
    if prop.type == "POINTER":
        return None if value is None else _inside(value, depth)
    if prop.type == "COLLECTION":
        return [_inside(item, depth) for item in value]
    if getattr(prop, "is_array", False):
        return repr([list(row) if hasattr(row, "__len__") else row for row in value])
    return sorted(value) if isinstance(value, set) else value


def _inside(struct: Any, depth: int) -> Any:
    if isinstance(struct, bpy.types.ID) or depth > 8:
        return repr(struct)
    return _struct(struct, depth + 1)


def _custom(block: Any) -> dict[str, str]:
    groups = idprop.types.IDPropertyGroup
    return {key: repr(value.to_dict() if isinstance(value, groups) else value) for key, value in block.items()}
