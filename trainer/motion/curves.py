# SPDX-License-Identifier: GPL-3.0-or-later
"""`prepare motion`: captured and animated faces as curves of the basis' channels, at the model's frame rate.

GRID: bounded least squares of the basis on the tracked landmarks, per frame, slightly smoothed over time. The tracker's
own ARKit scores are not used: they are flat, and gaze leaks into the mouth. FACEGOOD: the artists' FACS curves,
renamed. Layout of the folder: weights.npy float32 (T, K), all clips end to end; clips.json; tracked.npz, the filmed
lips of every GRID clip and the mesh's, which serve to judge predictions, never to learn.

Shapes: N clips, T animation frames, P landmarks, K channels.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wav2sem_blender.errors import MissingFileError
from wav2sem_blender.files import FolderKind, atomic_file, write_atomically

from ..datasets.corpora import FACEGOOD_HELD_OUT, Clip, list_clips
from ..speech.prepared import SpeechRecord, SpeechStore
from .landmarks import (
    CHIN,
    CORNER_PAIRS,
    INNER_LIP_PAIRS,
    LIPS,
    LOWER_LIP_PAIRS,
    NOSE,
    UPPER_LIP_PAIRS,
    USED,
    LandmarkBasis,
    LipGap,
    LipPoints,
    filmed_lips,
    inner_gap,
    landmark_basis,
    lip_gap,
    lip_points,
    stabilise,
    tracked_rest_pose,
)

FPS = 30
TRACKED = "tracked.npz"
_FOLDER = FolderKind(made_by="prepare motion or prepare driven", names=("weights.npy", "clips.json", TRACKED))
IS_LIP = [i for i, name in enumerate(USED) if name not in (*NOSE, *CHIN)]
MIRRORED = ("Left", "Right")
SIDEWAYS = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
DEPTH_WEIGHT = 0.25  # low, as the tracker guesses depth from one camera
LIPS_WEIGHT = 6.0  # high, as a mouth is read from its opening, width and lips more than from their place
LOWER_LIP_WEIGHT = 2.0  # in speech the lower lip is fuller than at rest, which only antagonists could follow
EFFORT_M2 = 3e-6  # linear cost of a channel at weight 1: favours explanations with fewer channels
# Times that cost: of channels that would fight another one, or that viewers take for an expression.
EFFORTS = {"mouthClose": 50.0, "mouthFrownLeft": 2.0, "mouthShrugUpper": 4.0}
MOST = {"mouthFrownLeft": 0.6}  # weight; corners sink with the jaw, but a deep frown is an expression
SMOOTHNESS = 0.05
# On p, b and m the lips meet below their place in silence, and no channel lowers the upper one. So zero weights are
# that low, and speech raises the lip.
LIPS_MEET_LOWER_M = 0.0012
ITERATIONS = 250

FACEGOOD_TO_ARKIT = {
    "jawOpen": {"mouth_stretch_c": 1.0, "mouth_oh_c": 0.2},
    "mouthFunnel": {"mouth_funnel_dl": 0.25, "mouth_funnel_dr": 0.25, "mouth_funnel_ul": 0.25, "mouth_funnel_ur": 0.25,
                    "mouth_oh_c": 0.4},
    "mouthPucker": {"mouth_pucker_l": 0.5, "mouth_pucker_r": 0.5, "mouth_oo_c": 0.8},
    "mouthRollLower": {"mouth_suck_dl": 0.5, "mouth_suck_dr": 0.5},
    "mouthRollUpper": {"mouth_suck_ul": 0.5, "mouth_suck_ur": 0.5},
    "mouthShrugLower": {"mouth_chinRaise_d": 1.0},
    "mouthShrugUpper": {"mouth_chinRaise_u": 1.0},
    "mouthSmileLeft": {"mouth_lipCornerPull_l": 1.0},
    "mouthSmileRight": {"mouth_lipCornerPull_r": 1.0},
    "mouthStretchLeft": {"mouth_lipStretch_l": 1.0},
    "mouthStretchRight": {"mouth_lipStretch_r": 1.0},
    "mouthPressLeft": {"mouth_press_l": 1.0},
    "mouthPressRight": {"mouth_press_r": 1.0},
    "mouthLowerDownLeft": {"mouth_lowerLipDepress_l": 1.0},
    "mouthLowerDownRight": {"mouth_lowerLipDepress_r": 1.0},
    "mouthUpperUpLeft": {"mouth_upperLipRaise_l": 1.0},
    "mouthUpperUpRight": {"mouth_upperLipRaise_r": 1.0},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MotionRecord:
    """One clip of the prepared motion: frames [first, first + n_frames) of weights.npy."""

    name: str
    style: str
    split: str
    first: int
    n_frames: int


class MotionStore:
    """Prepared motion, opened for reading."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "clips.json").is_file():
            raise MissingFileError(
                "{folder}: no prepared motion; run `python -m trainer prepare motion` first",
                folder=folder,
            )
        self.folder = folder
        description = json.loads((folder / "clips.json").read_text())
        self.channels: tuple[str, ...] = tuple(description["channels"])
        self.records = [MotionRecord(**record) for record in description["clips"]]
        self.weights_TK = np.load(folder / "weights.npy", mmap_mode="r")

    def weights(self, record: MotionRecord) -> np.ndarray:
        """float32 (T, K)."""
        return np.asarray(self.weights_TK[record.first : record.first + record.n_frames])

    def tracked_lips(self) -> dict[str, LipGap]:
        """The filmed lips of all clips with a film, by the clip's name.

        Raises:
            MissingFileError: an older version prepared the store.
        """
        if not (self.folder / TRACKED).is_file():
            raise MissingFileError(
                "{folder}: no tracked lips; run `python -m trainer prepare motion` again",
                folder=self.folder / TRACKED,
            )
        with np.load(self.folder / TRACKED) as file:
            gap_T, found_T, points_TP2 = file["gap_T"], file["found_T"], file["points_TP2"]
            clips = zip(file["names"], np.cumsum(file["n_frames"]), file["n_frames"], file["fps"], strict=True)
            return {
                str(name): LipGap(
                    gap_T=gap_T[end - n : end],
                    found_T=found_T[end - n : end],
                    fps=float(fps),
                    points_TP2=points_TP2[end - n : end] if np.isfinite(points_TP2[end - n : end]).all() else None,
                )
                for name, end, n, fps in clips
            }

    def mesh_lips(self) -> LipPoints | None:
        """The mesh's lips, which predictions move; None without any film."""
        with np.load(self.folder / TRACKED) as file:
            if not len(file["mesh_rest_P2"]):
                return None
            return LipPoints(rest_P2=file["mesh_rest_P2"], basis_KP2=file["mesh_basis_KP2"])


def paired_records(speech: SpeechStore, motion: MotionStore) -> list[tuple[SpeechRecord, MotionRecord]]:
    """Recordings with motion."""
    by_name = {record.name: record for record in speech.records}
    return [(by_name[record.name], record) for record in motion.records if record.name in by_name]


def speech_channels(names: list[str]) -> list[int]:
    """Indices of the channels that speech moves: jaw and mouth."""
    return [i for i, name in enumerate(names) if name.startswith(("jaw", "mouth"))]


def prepare_motion(data: Path, basis_path: Path, out: Path) -> None:
    """Fit GRID, rename FACEGOOD, keep the filmed lips, and write the folder; prints the fit's error."""
    with np.load(basis_path) as file:
        names = [str(name) for name in file["names"]]
        keep = speech_channels(names)
        basis_KV3 = file["basis_KV3"][keep].astype(float)
    channels = tuple(names[i] for i in keep)
    clips = fit_grid(data, basis_KV3, channels) + facegood(data / "facegood", channels)
    write_motion(out, channels, clips)
    mesh = lip_points(landmark_basis(_flame(data), basis_KV3, np.zeros((len(CHIN), 3))))
    tracks = {clip.name: clip.path.with_suffix(".npz") for clip in _filmed(data)}
    lips = {name: replace(lip_gap(track), points_TP2=filmed_lips(track)) for name, track in tracks.items()}
    write_tracked(out, lips, mesh)


Fitted = tuple[str, str, str, np.ndarray]


def write_motion(out: Path, channels: tuple[str, ...], clips: list[Fitted]) -> None:
    """Write a folder that `MotionStore` reads."""
    _FOLDER.claim(out)
    records, first = [], 0
    for name, style, split, weights_TK in clips:
        records.append(MotionRecord(name=name, style=style, split=split, first=first, n_frames=len(weights_TK)))
        first += len(weights_TK)
    with atomic_file(out / "weights.npy") as file:
        np.save(file, np.concatenate([clip[3] for clip in clips]).astype(np.float32))
    description = {"channels": channels, "clips": [asdict(record) for record in records]}
    write_atomically(out / "clips.json", json.dumps(description).encode())


def write_tracked(out: Path, lips: dict[str, LipGap], mesh: LipPoints | None = None) -> None:
    """Write what `MotionStore.tracked_lips` and `mesh_lips` read, even without any film: an empty table differs from
    an old store."""
    lost_P2 = np.full((1, len(LIPS), 2), np.nan)
    points = [
        np.repeat(lost_P2, len(lip.gap_T), 0) if lip.points_TP2 is None else lip.points_TP2 for lip in lips.values()
    ]
    with atomic_file(out / TRACKED) as file:
        np.savez(
            file,
            names=np.array(list(lips), dtype=str),
            n_frames=np.array([len(lip.gap_T) for lip in lips.values()], dtype=int),
            fps=np.array([lip.fps for lip in lips.values()]),
            gap_T=np.concatenate([np.zeros(0), *(lip.gap_T for lip in lips.values())]),
            found_T=np.concatenate([np.zeros(0, bool), *(lip.found_T for lip in lips.values())]),
            points_TP2=np.concatenate([lost_P2[:0], *points]).astype(np.float32),
            mesh_rest_P2=mesh.rest_P2 if mesh else np.zeros((0, 2)),
            mesh_basis_KP2=mesh.basis_KP2 if mesh else np.zeros((0, 0, 2)),
        )


def _filmed(data: Path) -> list[Clip]:
    """The clips with a tracked face."""
    return [clip for clip in list_clips(data) if clip.corpus in ("grid_s1", "grid_others")]


def fit_grid(data: Path, basis_KV3: np.ndarray, channels: tuple[str, ...]) -> list[Fitted]:
    """(name, style, split, weights (T, K) at 30 fps) of every tracked GRID clip."""
    flame = _flame(data)
    clips = _filmed(data)
    rigid_R3 = landmark_basis(flame, basis_KV3[:1], np.zeros((len(CHIN), 3))).rigid_R3
    tracks = {clip.name: stabilise(clip.path.with_suffix(".npz"), rigid_R3) for clip in tqdm(clips, desc="tracks")}
    rests: dict[str, list[np.ndarray]] = {}
    for clip in clips:
        rests.setdefault(clip.speaker, []).append(tracked_rest_pose(*tracks[clip.name][:2]))
    chin_C3 = np.mean(rests["grid_s1"], axis=0)[-len(CHIN) :]
    landmarks = landmark_basis(flame, basis_KV3, chin_C3)
    jaw, close = channels.index("jawOpen"), channels.index("mouthClose")
    fitted: list[Fitted] = []
    errors_mm, gaps = [], []
    for clip in tqdm(clips, desc="fit", unit="clip"):
        used_TP3, found_T, fps = tracks[clip.name]
        rest_P3 = 0.5 * tracked_rest_pose(used_TP3, found_T) + 0.5 * np.median(rests[clip.speaker], axis=0)
        rest_P3[IS_LIP, 1] -= LIPS_MEET_LOWER_M
        moved_TP3 = used_TP3 - rest_P3
        weights_TK = solve(landmarks, channels, moved_TP3, found_T)
        residual = np.einsum("tk,kpd->tpd", weights_TK, landmarks.basis_KP3) - moved_TP3
        errors_mm.append(1000 * np.linalg.norm(residual[found_T][..., :2], axis=-1).mean())
        rebuilt_TP3 = landmarks.rest_P3 + np.einsum("tk,kpd->tpd", weights_TK, landmarks.basis_KP3)
        gaps.append(np.corrcoef(inner_gap(rebuilt_TP3)[found_T], inner_gap(used_TP3)[found_T])[0, 1])
        style = "grid_s1" if clip.corpus == "grid_s1" else clip.speaker
        resampled_TK = _resample(weights_TK, fps)
        resampled_TK[:, close] = np.minimum(resampled_TK[:, close], resampled_TK[:, jaw])  # a spline overshoots
        fitted.append((clip.name, style, clip.split, resampled_TK))
    print(f"GRID fit: {np.mean(errors_mm):.2f} mm a landmark, lip gap r = {np.nanmean(gaps):.3f} with the tracked one")
    return fitted


def _flame(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "flame2023_open" / "flame2023_open.npz") as file:
        return {key: file[key] for key in file.files}


def free_channels(channels: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """The variables of the fit: their names (J), and each one's weights of all channels (J, K).

    `mouthClose` opens the jaw as far as it closes the lips, so that its weight is at most `jawOpen`'s.
    """
    free_KK = np.eye(len(channels))
    if "mouthClose" in channels:
        free_KK[channels.index("mouthClose"), channels.index("jawOpen")] = 1
    return channels, free_KK


def solve(
    landmarks: LandmarkBasis, channels: tuple[str, ...], moved_TP3: np.ndarray, found_T: np.ndarray
) -> np.ndarray:
    """Channel weights (T, K) in [0, 1] that move the landmarks as tracked.

    Minimises misfit + effort + second difference over time by accelerated projected gradient.
    """
    names, free_JK = free_channels(channels)
    design_JQ, target_TQ = _equations(np.einsum("jk,kpd->jpd", free_JK, landmarks.basis_KP3)), _equations(moved_TP3)
    gram_JJ = design_JQ @ design_JQ.T
    left, right = MIRRORED
    sides = [name.replace(right, left) for name in names]
    # A pair of channels costs as much as one.
    shares = [0.5 if any(side in name for side in MIRRORED) and name not in SIDEWAYS else 1.0 for name in names]
    effort_J = EFFORT_M2 * np.array([EFFORTS.get(name, 1.0) for name in sides]) * shares
    most_J = np.array([MOST.get(name, 1.0) for name in sides])
    pull_TJ = (target_TQ @ design_JQ.T) * found_T[:, None] - effort_J
    smooth = SMOOTHNESS * np.diag(gram_JJ).mean()
    step = 1 / (np.linalg.eigvalsh(gram_JJ)[-1] + 16 * smooth)
    found = found_T[:, None].astype(float)
    x_TJ = np.zeros((len(moved_TP3), len(names)))
    y_TJ, momentum = x_TJ, 1.0
    for _ in range(ITERATIONS):
        gradient = (y_TJ @ gram_JJ) * found - pull_TJ + smooth * _fourth_difference(y_TJ)
        new_TJ = one_sided(np.clip(y_TJ - step * gradient, 0, most_J), names)
        new_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        y_TJ = new_TJ + (momentum - 1) / new_momentum * (new_TJ - x_TJ)
        x_TJ, momentum = new_TJ, new_momentum
    return np.minimum(x_TJ @ free_JK, 1.0)


def one_sided(weights_TK: np.ndarray, channels: tuple[str, ...]) -> np.ndarray:
    """The same array without what jaw or mouth move to the left and back to the right; changed in place."""
    for left, right in (SIDEWAYS[:2], SIDEWAYS[2:]):
        if left in channels:
            pair = [channels.index(left), channels.index(right)]
            weights_TK[:, pair] -= weights_TK[:, pair].min(1, keepdims=True)
    return weights_TK


def _equations(field_XP3: np.ndarray) -> np.ndarray:
    """Every landmark's three axes, and the mouth's gap, width and thickness, weighed: (X, Q)."""

    def apart(pairs: tuple[tuple[int, int], ...], axis: int) -> np.ndarray:
        first, second = ([USED.index(pair[i]) for pair in pairs] for i in (0, 1))
        return field_XP3[:, first, axis] - field_XP3[:, second, axis]

    return np.concatenate(
        [
            (field_XP3 * (1.0, 1.0, DEPTH_WEIGHT)).reshape(len(field_XP3), -1),
            LIPS_WEIGHT * apart(INNER_LIP_PAIRS, 1),
            LIPS_WEIGHT * apart(CORNER_PAIRS, 0),
            LIPS_WEIGHT * apart(UPPER_LIP_PAIRS, 1),
            LOWER_LIP_WEIGHT * apart(LOWER_LIP_PAIRS, 1),
        ],
        axis=1,
    )


def _fourth_difference(x_TK: np.ndarray) -> np.ndarray:
    """D'D x for the second difference D."""
    second = np.diff(x_TK, 2, axis=0)
    out = np.zeros_like(x_TK)
    out[:-2] += second
    out[1:-1] -= 2 * second
    out[2:] += second
    return out


def facegood(folder: Path, channels: tuple[str, ...]) -> list[Fitted]:
    """FACEGOOD's curves under ARKit's names."""
    names = [str(name) for name in np.load(folder / "shirley_1119_bs_name316.npy")]
    fitted: list[Fitted] = []
    for path in sorted(folder.glob("bs_*.npz")):
        with np.load(path) as file:
            source_TJ, fps = file["bs"].astype(float), float(file["fps"])
        weights_TK = np.zeros((len(source_TJ), len(channels)))
        for k, channel in enumerate(channels):
            for source, amount in FACEGOOD_TO_ARKIT.get(channel, {}).items():
                weights_TK[:, k] += amount * source_TJ[:, names.index(source)]
        name = path.stem.removeprefix("bs_")
        split = "valid" if name == FACEGOOD_HELD_OUT else "train"
        fitted.append((name, "artist", split, _resample(weights_TK.clip(0, 1), fps)))
    return fitted


def _resample(weights_TK: np.ndarray, fps: float) -> np.ndarray:
    """Cubic resampling to the model's frame rate; linear interpolation from 25 fps would flatten short closures."""
    from scipy.interpolate import make_interp_spline

    times_s = np.arange(len(weights_TK)) / fps
    wanted_s = np.arange(int(len(weights_TK) * FPS / fps)) / FPS
    spline = make_interp_spline(times_s, weights_TK, k=3)
    return spline(np.minimum(wanted_s, times_s[-1])).clip(0, 1).astype(np.float32)
