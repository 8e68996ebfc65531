# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate the demo head and write ``demo_head.npz`` into the package's assets.

Run from the repository root::

    python -m tools.demo_head

The file holds (units: metres; x to the character's left, face along -y, z up; z = 0 at the bottom of the bust)

    points (V, 3) float32, quads (F, 4) uint16, material (F,) uint8, material_names, tint (V, 3) uint8,
    skin_mirror (S,) uint16 of the first S vertices, lip_pairs and lid_pairs (upper and lower vertices that meet when
    the mouth or an eye closes), and the 52 sparse keys: key_names, key_starts (53,), key_vertices (N,) uint16,
    key_offsets (N, 3) int16 in units of ``key_unit_m``.
"""

from __future__ import annotations

import numpy as np

from wav2sem_blender.assets import DEMO_HEAD
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS

from . import attire, parts
from .fields import Fields, bump
from .keys import extend, skin_keys
from .skin import build_skin
from .surface import Skin, contact_pairs, smoothstep

Array = np.ndarray
MATERIALS = ("skin", "lips", "mouth", "lash", "sclera", "iris", "limbus", "pupil", "catch_light", "teeth", "gum",
             "tongue", "brow", "hair", "jumper")  # fmt: skip
KEY_UNIT_M = 5e-6
BUST_BOTTOM_CM = -29.7


def mirror_index(points: Array, label: Array) -> Array:
    """Index of each vertex's mirror image; ``label`` (V,) separates vertices at the same place."""
    spread = np.column_stack([points, 10.0 * label])
    flipped = spread * np.array([-1.0, 1.0, 1.0, 1.0])
    out = np.empty(len(points), int)
    for start in range(0, len(points), 512):
        rows = flipped[start : start + 512]
        out[start : start + 512] = ((rows[:, None] - spread[None]) ** 2).sum(-1).argmin(1)
    return out


def build() -> dict[str, Array]:
    """All arrays of the file."""
    skin = build_skin()
    mirror = mirror_index(skin.points, skin.side)
    skin.points = 0.5 * (skin.points + skin.points[mirror] * np.array([-1.0, 1.0, 1.0]))
    keys = skin_keys(Fields(skin), mirror)
    contact_y = skin.points[skin.mouth_rings[skin.contact], 1].min()
    eye, brow, ear = parts.eyeball(), attire.brow(), parts.ear()
    islands = [
        eye, eye.mirrored("eye_right"), parts.catch_lights(), brow, brow.mirrored(), ear, ear.mirrored(),
        parts.dental_arch("upper", contact_y + 1.28), parts.dental_arch("lower", contact_y + 1.28),
        parts.tongue(contact_y + 1.5), attire.hair(), attire.jumper(),
    ]  # fmt: skip
    points, quads = [skin.points], [skin.quads]
    names = [np.array(["skin", "lips", "mouth", "lash"])[skin.region]]
    moves = {name: [keys[name]] for name in ARKIT_CHANNELS}
    count = len(skin.points)
    for part in islands:
        points.append(part.points)
        quads.append(part.quads + count)
        names.append(part.materials)
        count += len(part.points)
        for name in ARKIT_CHANNELS:
            moves[name].append(extend(part, name, skin.points, keys[name]))
    for side in (1, -1):
        part, anchors = attire.lashes(skin, side)
        points.append(part.points)
        quads.append(part.quads + count)
        names.append(part.materials)
        count += len(part.points)
        for name in ARKIT_CHANNELS:
            moves[name].append(keys[name][anchors])
    all_points = np.concatenate(points)
    uppers, lowers = contact_pairs(skin)
    return {
        "points": ((all_points - np.array([0.0, 0.0, BUST_BOTTOM_CM])) / 100).astype(np.float32),
        "quads": np.concatenate(quads).astype(np.uint16),
        "material": np.array([MATERIALS.index(m) for m in np.concatenate(names)], np.uint8),
        "material_names": np.array(MATERIALS),
        "tint": tint(all_points),
        "skin_mirror": mirror.astype(np.uint16),
        "lip_pairs": np.stack([uppers, lowers], -1)[:, 1:-1].reshape(-1, 2).astype(np.uint16),
        "lid_pairs": lid_pairs(skin),
        **pack_keys({name: np.concatenate(m) / 100 for name, m in moves.items()}),
    }


def lid_pairs(skin: Skin) -> Array:
    """(2, N, 2) upper and lower margin vertices that meet in a blink, for the left and the right eye."""
    out = []
    for side in (1, -1):
        edge = skin.lid_margins[side][0]
        psi = np.round(np.angle(np.exp(1j * skin.lid_angle[edge])), 9)
        upper = edge[(psi > 0) & (psi < 3.14159)]
        upper_psi = psi[(psi > 0) & (psi < 3.14159)]
        lower, lower_psi = edge[psi < 0], psi[psi < 0]
        match = [lower[np.argmin(np.abs(lower_psi + a))] for a in upper_psi]
        out.append(np.stack([upper, match], 1))
    return np.array(out, np.uint16)


def tint(p: Array) -> Array:
    """(V, 3) uint8: blush of the skin, shade in the sockets, light in the lower half of the eyes."""
    mirrored = np.concatenate([np.abs(p[:, :1]), p[:, 1:]], axis=1)
    blush = bump(mirrored, (4.5, -7.0, -3.3), (1.7, 3.0, 1.3)) + 0.55 * bump(p, (0, -10.6, -2.7), (1.1, 1.0, 0.9))
    blush += 0.8 * bump(mirrored, (9.2, 2.2, -1.5), (1.0, 1.6, 2.6))
    shade = bump(mirrored, (3.6, -7.6, 1.5), (2.0, 1.6, 0.8)) + bump(mirrored, (0.5, -9.3, -3.7), (0.4, 0.8, 0.35))
    return np.round(255 * np.clip(np.stack([blush, shade, smoothstep(0.5, -0.8, p[:, 2])], 1), 0, 1)).astype(np.uint8)


def pack_keys(moves: dict[str, Array]) -> dict[str, Array]:
    """Sparse, quantised keys."""
    vertices, offsets, starts = [], [], [0]
    for move in moves.values():
        steps = np.round(move / KEY_UNIT_M).astype(np.int16)
        moved = np.nonzero((np.abs(steps) > 1).any(1))[0]
        vertices.append(moved.astype(np.uint16))
        offsets.append(steps[moved])
        starts.append(starts[-1] + len(moved))
    return {
        "key_names": np.array(list(moves)),
        "key_starts": np.array(starts, np.uint32),
        "key_vertices": np.concatenate(vertices),
        "key_offsets": np.concatenate(offsets),
        "key_unit_m": np.float64(KEY_UNIT_M),
    }


def main() -> None:
    """Write the file and print its size."""
    arrays = build()
    np.savez_compressed(DEMO_HEAD, **arrays)
    size_kib = DEMO_HEAD.stat().st_size / 1024
    print(f"{DEMO_HEAD.name}: {len(arrays['points'])} vertices, {len(arrays['quads'])} quads, {size_kib:.0f} KiB")


if __name__ == "__main__":
    main()
