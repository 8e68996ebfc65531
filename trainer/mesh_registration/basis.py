# SPDX-License-Identifier: GPL-3.0-or-later
"""ARKit's expressions on FLAME's topology.

    python -m trainer.mesh_registration.basis --data ../shared/data --out basis.npz

ICT-FaceKit's expressions (MIT licence) are transferred to the FLAME 2023 Open template (CC-BY-4.0, MPI-IS) by
deformation transfer (Sumner and Popovic 2004, "Deformation transfer for triangle meshes") over a non-rigid registration
of the two neutral heads. The jaw keys use FLAME's jaw joint and skin weights. Lips and lids are corrected to meet.

Shapes: K channels, V vertices, F triangles. Metres, FLAME's frame: x to the character's left, y up, z forward.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import splu

from wav2sem_blender.files import atomic_file, write_atomically
from wav2sem_blender.pipeline.any_head.geometry import edges_hash, face_edges
from wav2sem_blender.pipeline.upper_face import UPPER_FACE_CHANNELS

from .registration import (
    HEAD_VERTICES,
    MIRROR,
    Binding,
    Surface,
    bilaplacian,
    cotangent_laplacian,
    curve_points,
    edge_graph,
    load_flame,
    load_ict,
    mirror_map,
    register,
)

CHANNELS = (  # ARKit's order as in Live Link Face, without tongueOut, which ICT-FaceKit lacks
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel",
    "mouthPucker", "mouthRight", "mouthLeft", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp",
    "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft",
    "noseSneerRight",
)  # fmt: skip
EYEBALLS = {"Left": slice(3931, 4477), "Right": slice(4477, 5023)}  # FLAME's eyeballs
EYE_JOINTS = {"Left": 3, "Right": 4}
GAZE_DEG = {"Up": (-20.0, 0.0), "Down": (25.0, 0.0), "In": (0.0, 30.0), "Out": (0.0, 30.0)}  # pitch, yaw at weight 1
LID_RUNS = {"Right": ((36, 37, 38, 39), (36, 41, 40, 39)), "Left": ((42, 43, 44, 45), (42, 47, 46, 45))}  # upper, lower
LIP_RUNS = ((60, 61, 62, 63, 64), (60, 67, 66, 65, 64))  # upper, lower; paired landmarks meet on the seam
LID_CLEARANCE_M = 0.0004  # distance of a moved lid from the eyeball
NEGLIGIBLE_M = 1e-5  # smaller motion is set to zero, which keeps shape keys local and files small
JAW_JOINT = 2  # FLAME's joint
_N_IDENTITIES, _IDENTITY_UNIT_M = 40, 1e-4  # components in the preflight's reference, for one standard deviation each


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Displacements of the FLAME template at weight 1: names (K), basis_KV3 float32 metres."""

    names: tuple[str, ...]
    basis_KV3: np.ndarray


class Transfer:
    """Transfers expressions from ICT's head to FLAME's symmetrised template; all solves share one factorisation."""

    def __init__(self, flame: dict[str, np.ndarray], skin: Surface, binding: Binding, twin_V: np.ndarray):
        self.binding, self.twin_V, self.triangles_F3 = binding, twin_V, skin.triangles_F3
        self.template_V3 = (skin.points_V3 + MIRROR * skin.points_V3[twin_V]) / 2
        plate = bilaplacian(binding.fitted_V3, skin.triangles_F3)
        stiffness, area = cotangent_laplacian(self.template_V3, skin.triangles_F3)
        trust = sparse.diags(binding.confidence_V)
        self.trust_V = binding.confidence_V
        self.fill = splu((trust + 0.02 * plate + 1e-5 * stiffness + 1e-9 * sparse.identity(len(area))).tocsc())
        # Details below 15 mm follow the deformation gradients, larger shapes the displacement.
        self.anchor_V = area / 0.015**2
        self.poisson = splu((stiffness + sparse.diags(self.anchor_V)).tocsc())
        self.frames_F33 = np.linalg.inv(frames(binding.fitted_V3, skin.triangles_F3))
        self.still_V = still_mask(flame, skin)

    def displacement(self, expression_V3: np.ndarray) -> np.ndarray:
        """FLAME skin displacement (V, 3) for ICT's (metres), on the symmetric template."""
        moved = self.fill.solve(self.trust_V[:, None] * self.binding.interpolate(expression_V3))
        gradients_F33 = frames(self.binding.fitted_V3 + moved, self.triangles_F3) @ self.frames_F33
        change_F33 = gradients_F33 - np.eye(3)
        right = self.anchor_V[:, None] * moved
        points, triangles = self.template_V3, self.triangles_F3
        corners = points[triangles]
        area2 = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        for k in range(3):
            i, j, o = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
            u, v = points[i] - points[o], points[j] - points[o]
            weight = np.clip((u * v).sum(1) / np.maximum(area2, 1e-12), 0.05, 5.0) / 2
            flow = weight[:, None] * np.einsum("fab,fb->fa", change_F33, points[i] - points[j])
            np.add.at(right, i, flow)
            np.add.at(right, j, -flow)
        return self.poisson.solve(right) * self.still_V[:, None]

    def mirrored(self, displacement_V3: np.ndarray) -> np.ndarray:
        """The same displacement on the other side of the face."""
        return MIRROR * displacement_V3[self.twin_V]


def frames(points_V3: np.ndarray, triangles_F3: np.ndarray) -> np.ndarray:
    """Columns edge, edge, unit normal of every triangle (F, 3, 3)."""
    a, b, c = (points_V3[triangles_F3[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-15)
    return np.stack([b - a, c - a, normal], 2)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below low, 1 above high, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def still_mask(flame: dict[str, np.ndarray], skin: Surface) -> np.ndarray:
    """1 on the face, 0 on the neck's border and the back of the head (V,)."""
    edges = np.sort(
        np.concatenate([skin.triangles_F3[:, [0, 1]], skin.triangles_F3[:, [1, 2]], skin.triangles_F3[:, [2, 0]]])
    )
    edges, count = np.unique(np.sort(edges, 1), axis=0, return_counts=True)
    border = np.unique(edges[count == 1])
    border = border[skin.points_V3[border, 1] < -0.1]  # the other open border is the mouth's
    from_border = dijkstra(edge_graph(skin), indices=border, min_only=True)
    return smoothstep(from_border, 0.03, 0.075) * smoothstep(skin.points_V3[:, 2], -0.075, -0.03)


def rotation_x(angle: float) -> np.ndarray:
    """Rotation by an angle in radians about x: positive opens the jaw."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def jaw_opening(flame: dict[str, np.ndarray], angle: float) -> np.ndarray:
    """Skin displacement (V, 3) of FLAME's jaw joint rotated about x, with the model's pose correctives."""
    points = flame["v_template"].astype(float)
    joint = flame["J_regressor"][JAW_JOINT] @ points
    turn = rotation_x(angle)
    corrective = flame["posedirs"][:, :, 9 * (JAW_JOINT - 1) : 9 * JAW_JOINT] @ (turn - np.eye(3)).ravel()
    # The learned correctives also move the lids and the forehead; a jaw key must not.
    shaped = points + corrective * (1 - smoothstep(points[:, 1], -0.03, 0.0))[:, None]
    weight = flame["lbs_weights"][:, JAW_JOINT, None]
    moved = weight * ((shaped - joint) @ turn.T + joint) + (1 - weight) * shaped
    return (moved - points)[:HEAD_VERTICES]


def jaw_open(flame: dict[str, np.ndarray], transfer: Transfer, ict_open: np.ndarray, chin: int) -> np.ndarray:
    """jawOpen (V, 3) by FLAME's joint, rotated until the chin is where ICT's is; linear in the key's weight.

    jawForward, jawLeft and jawRight remain ICT's: a shift by the skin weights would tear the lips apart.
    """
    angles = np.radians(np.linspace(5, 35, 121))
    misses = [np.linalg.norm(jaw_opening(flame, angle)[chin] - ict_open[chin]) for angle in angles]
    opening = jaw_opening(flame, angles[int(np.argmin(misses))])
    return (opening + transfer.mirrored(opening)) / 2 * transfer.still_V[:, None]


class Seam:
    """The two lines, upper and lower, along which a pair of lips or lids meets."""

    def __init__(self, skin: Surface, runs: tuple[tuple[int, ...], tuple[int, ...]]):
        self.skin, graph = skin, edge_graph(skin)
        self.lines = []
        for run in runs:
            pieces = curve_points(skin, graph, run)
            at = np.concatenate([k + fraction[:-1] for k, (fraction, _) in enumerate(pieces)] + [[len(pieces)]])
            ids = np.concatenate([ids[:-1] for _, ids in pieces] + [[pieces[-1][1][-1]]])
            self.lines.append((at, ids))
        self.ids = np.concatenate([ids for _, ids in self.lines])
        self.from_seam = dijkstra(graph, indices=self.ids, min_only=True)

    def meeting(self, field_V3: np.ndarray, upper_share: float) -> np.ndarray:
        """The correction of a field at `ids` (P, 3) that makes both lines of the seam meet."""
        missing = []
        for at, ids in self.lines:
            both = [interpolate(at, other_at, field_V3[other_ids]) for other_at, other_ids in self.lines]
            missing.append(upper_share * both[0] + (1 - upper_share) * both[1] - field_V3[ids])
        return np.concatenate(missing)

    def gaps(self, points_V3: np.ndarray) -> np.ndarray:
        """Vectors (P, 3) in metres from the lower line to the upper one, at the upper line's vertices."""
        (at, ids), (lower_at, lower_ids) = self.lines
        return points_V3[ids] - interpolate(at, lower_at, points_V3[lower_ids])

    def spread(self, values_P3: np.ndarray, reach_m: float) -> np.ndarray:
        """A smooth field (V, 3) that has the given values on the seam and fades out within reach_m along the
        surface."""
        held = np.bincount(self.ids, minlength=len(self.from_seam)).astype(float)
        sums = np.stack([np.bincount(self.ids, values_P3[:, c], minlength=len(held)) for c in range(3)], 1)
        away = 10 * smoothstep(self.from_seam, 0.3 * reach_m, reach_m)
        plate = bilaplacian(self.skin.points_V3, self.skin.triangles_F3)
        system = 0.01 * plate + sparse.diags(100 * held + away + 1e-6)
        field = splu(system.tocsc()).solve(100 * sums)
        return field * (1 - smoothstep(self.from_seam, 0.7 * reach_m, reach_m))[:, None]


def interpolate(at: np.ndarray, line_at: np.ndarray, line_P3: np.ndarray) -> np.ndarray:
    """Values of a polyline (P, 3), given at line_at, interpolated at other places."""
    return np.stack([np.interp(at, line_at, line_P3[:, c]) for c in range(3)], 1)


def mouth_close(skin: Surface, jaw: np.ndarray, ict_open: np.ndarray, ict_close: np.ndarray) -> np.ndarray:
    """mouthClose (V, 3), ARKit's corrective of jawOpen: the jaw stays down, and the lips meet as at rest."""
    # ICT's closed mouth assumes ICT's open jaw; near the lips this key adds the difference to FLAME's jaw.
    seam = Seam(skin, LIP_RUNS)
    near_lips = 1 - smoothstep(seam.from_seam, 0.01, 0.055)[:, None]
    close = ict_close + near_lips * (ict_open - jaw)
    return close + seam.spread(seam.meeting(jaw + close, upper_share=0.5), reach_m=0.03)


def eyeball(flame: dict[str, np.ndarray], side: str) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of one of FLAME's eyes."""
    points = flame["v_template"][EYEBALLS[side]].astype(float)
    centre = flame["J_regressor"][EYE_JOINTS[side]] @ flame["v_template"]
    return centre, float(np.linalg.norm(points - centre, axis=1).max())


def blink(flame: dict[str, np.ndarray], skin: Surface, displacement_V3: np.ndarray, side: str) -> np.ndarray:
    """eyeBlink with lids that meet in front of the eyeball."""
    seam, (centre, radius) = Seam(skin, LID_RUNS[side]), eyeball(flame, side)
    for _ in range(2):
        moved = skin.points_V3 + displacement_V3
        goal = moved[seam.ids] + seam.meeting(moved, upper_share=0.15)
        outward = goal - centre
        distance = np.linalg.norm(outward, axis=1, keepdims=True)
        goal = centre + outward * np.maximum(1, (radius + 2 * LID_CLEARANCE_M) / distance)
        displacement_V3 = displacement_V3 + seam.spread(goal - moved[seam.ids], reach_m=0.012)
        displacement_V3 = clear_eyeball(flame, skin, displacement_V3, side)
    return displacement_V3


def clear_eyeball(flame: dict[str, np.ndarray], skin: Surface, displacement_V3: np.ndarray, side: str) -> np.ndarray:
    """Move skin that a key pushed into the eyeball back to its surface, but not further out than at rest."""
    centre, radius = eyeball(flame, side)
    outward = skin.points_V3 + displacement_V3 - centre
    distance = np.linalg.norm(outward, axis=1)
    least = np.minimum(np.linalg.norm(skin.points_V3 - centre, axis=1), radius + LID_CLEARANCE_M)
    push = np.where(np.linalg.norm(displacement_V3, axis=1) > 1e-5, np.maximum(least - distance, 0), 0)
    return displacement_V3 + outward * (push / np.maximum(distance, 1e-6))[:, None]


def gaze(flame: dict[str, np.ndarray], name: str) -> tuple[slice, np.ndarray] | None:
    """The eyeball's vertices and displacement for an eyeLook key, None for any other key."""
    if not name.startswith("eyeLook"):
        return None
    side = "Left" if name.endswith("Left") else "Right"
    direction = name.removeprefix("eyeLook").removesuffix(side)
    pitch, yaw = np.radians(GAZE_DEG[direction])
    outward = 1.0 if side == "Left" else -1.0
    yaw *= outward if direction == "Out" else -outward
    turn_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    centre, _ = eyeball(flame, side)
    points = flame["v_template"][EYEBALLS[side]].astype(float) - centre
    return EYEBALLS[side], points @ (turn_y @ rotation_x(pitch)).T - points


def build_basis(data_dir: Path) -> Basis:
    """Transfer ICT-FaceKit's ARKit expressions to FLAME's template.

    Args:
        data_dir: the folder with flame2023_open, ict_facekit and regions.
    """
    data_dir = Path(data_dir)
    flame, skin = load_flame(data_dir)
    ict, expressions = load_ict(data_dir, skin)
    twin_V = mirror_map(skin)
    transfer = Transfer(flame, skin, register(flame, skin, ict, twin_V), twin_V)
    raw = {
        name: transfer.displacement(np.sum([expressions[source] for source in ict_names(name, expressions)], axis=0))
        for name in CHANNELS
    }
    # ICT is symmetric but FLAME's template is not quite, so each key is averaged with the other side's, mirrored.
    keys = {name: (raw[name] + transfer.mirrored(raw[other_side(name)])) / 2 for name in CHANNELS}
    ict_open = keys["jawOpen"]
    keys["jawOpen"] = jaw_open(flame, transfer, ict_open, int(skin.landmarks[8]))
    keys["mouthClose"] = mouth_close(skin, keys["jawOpen"], ict_open, keys["mouthClose"])
    for side in EYEBALLS:
        keys = {name: clear_eyeball(flame, skin, key, side) for name, key in keys.items()}
        keys[f"eyeBlink{side}"] = blink(flame, skin, keys[f"eyeBlink{side}"], side)
    basis_KV3 = np.zeros((len(CHANNELS), len(flame["v_template"]), 3), np.float32)
    for k, name in enumerate(CHANNELS):
        basis_KV3[k, :HEAD_VERTICES] = keys[name]
        if (turned := gaze(flame, name)) is not None:
            basis_KV3[k, turned[0]] = turned[1]
    basis_KV3[np.linalg.norm(basis_KV3, axis=2) < NEGLIGIBLE_M] = 0
    return Basis(names=CHANNELS, basis_KV3=basis_KV3)


def other_side(name: str) -> str:
    """The channel of the other half of the face; a channel of both halves is returned unchanged."""
    if name.endswith("Left"):
        return name.removesuffix("Left") + "Right"
    return name.removesuffix("Right") + "Left" if name.endswith("Right") else name


def ict_names(name: str, expressions: dict[str, np.ndarray]) -> list[str]:
    """The ICT expressions that add up to an ARKit channel."""
    for side in ("Left", "Right"):
        if name.endswith(side) and f"{name.removesuffix(side)}_{side[0]}" in expressions:
            return [f"{name.removesuffix(side)}_{side[0]}"]
    return [name] if name in expressions else [f"{name}_L", f"{name}_R"]


def reference(flame: dict[str, np.ndarray], landmarks: np.ndarray, count: int = 80) -> dict[str, object]:
    """What identifies a mesh as FLAME's: counts, edge hash, `count` spread points and lip pairs, but no mesh.

    The points' motion with FLAME's first identity components tells another person's head from another pose.
    """
    points, faces = flame["v_template"].astype(float), flame["faces"].astype(np.int64)
    pairs = landmarks[np.array([[61, 67], [62, 66], [63, 65]])]
    ids = pairs.ravel().tolist()
    distance = np.min([np.linalg.norm(points - points[v], axis=1) for v in ids], axis=0)
    while len(ids) < count:  # add the point farthest from the chosen ones
        ids.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[ids[-1]], axis=1))
    gaps = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    return {
        "source": "FLAME 2023 Open (points, identities), Max Planck Institute for Intelligent Systems, CC-BY-4.0",
        "frame": "metres, x to the character's left, y up, z forward",
        "vertex_count": len(points),
        "face_count": len(faces),
        "edges_sha256": edges_hash(face_edges(faces)),
        "vertex_ids": ids,
        "points": points[ids].round(5).tolist(),
        "lip_pairs": pairs.tolist(),
        "lip_gaps_m": gaps.round(5).tolist(),
        "height_m": round(float(np.ptp(points[:, 1])), 5),
        "identity_unit_m": _IDENTITY_UNIT_M,
        "identities": (flame["shapedirs"][ids, :, :_N_IDENTITIES] / _IDENTITY_UNIT_M).round().astype(int).tolist(),
    }


def save(basis: Basis, path: Path) -> None:
    """Write names and basis_KV3 to an npz, atomically."""
    _save_npz(path, names=np.array(basis.names), basis_KV3=basis.basis_KV3)


def save_upper_face(basis: Basis, path: Path) -> None:
    """Write only lids, brows and eyes, for the add-on: names and basis_KV3, float16 metres (accurate to 0.01 mm)."""
    names = tuple(name for name in UPPER_FACE_CHANNELS if name in basis.names)
    basis_KV3 = basis.basis_KV3[[basis.names.index(name) for name in names]]
    _save_npz(
        path,
        source=np.array("ICT-FaceKit's expressions (MIT) on FLAME 2023 Open (CC-BY-4.0, MPI-IS); see LICENSE-weights"),
        names=np.array(names),
        basis_KV3=basis_KV3.astype(np.float16),
    )


def _save_npz(path: Path, **arrays: np.ndarray) -> None:
    with atomic_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: build the basis and write it."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.mesh_registration.basis", description="ARKit expressions on FLAME's topology."
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the development data")
    parser.add_argument("--out", type=Path, required=True, help="npz to write: names, basis_KV3 (metres)")
    parser.add_argument("--reference", type=Path, help="also write flame_reference.json here, for Blender's preflight")
    parser.add_argument(
        "--upper-face", type=Path, help="also write the lids, brows and eyes here, as the add-on's asset"
    )
    arguments = parser.parse_args(argv)
    if arguments.reference:
        flame, skin = load_flame(arguments.data)
        write_atomically(arguments.reference, (json.dumps(reference(flame, skin.landmarks)) + "\n").encode())
    basis = build_basis(arguments.data)
    save(basis, arguments.out)
    if arguments.upper_face:
        save_upper_face(basis, arguments.upper_face)
    print(f"{arguments.out}: {len(basis.names)} keys on {basis.basis_KV3.shape[1]} vertices")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
