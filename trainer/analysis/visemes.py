# SPDX-License-Identifier: GPL-3.0-or-later
"""A contact sheet of visemes: the demo head at every kind of sound, one row for each manner of speaking.

    python -m trainer.analysis.visemes --data work --out docs/images/visemes.png [--model default]

Each mouth is the mean over all such sounds of the validation split, at their middles: of the taught motion
(`motion/targets.py`), or with --model of what a model predicts in its styles of the same names. If oo, ee and ah cannot
be told apart here, they cannot be told apart in motion.

Shapes: T animation frames, K channels, V vertices, F triangles, S sounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from wav2sem_blender.assets import ASSETS
from wav2sem_blender.pipeline.infer import SpeechAnimator

from ..motion.curves import FPS, MotionStore, paired_records
from ..motion.shapes import read_basis
from ..motion.targets import PosedMouth, manners
from ..speech.phones import Timing
from ..speech.prepared import SAMPLE_RATE_HZ, SpeechStore
from .pictures import DPI, MOUTH_PX, MOUTH_VIEW_MM, PAPER, daylight, nearest_surface

SOUNDS: Mapping[str, tuple[str, ...]] = {
    "oo": ("UW",), "w": ("W",), "ee": ("IY",), "ah": ("AA", "AY", "AW"), "p b m": ("P", "B", "M"), "f v": ("F", "V"),
    "sh ch": ("SH", "CH", "JH", "ZH"), "th l": ("TH", "DH", "L"), "s t": ("S", "Z", "T"),
}  # fmt: skip
SHOWN = ("natural", "clear")
LEAST_S = 0.06  # shorter sounds hardly have a shape of their own
PAINT = {
    "skin": "#DDB49E",
    "lips": "#B4545C",
    "mouth": "#4A1518",
    "teeth": "#F4F0E6",
    "gum": "#C46A6E",
    "tongue": "#C9636B",
}

Said = tuple[dict[str, np.ndarray], Sequence[Timing]]


class DemoMouth:
    """The lower face of the bundled demo head, moved by ARKit's channels; in mm from the middle of its lips, x to the
    character's left, y up, z forward."""

    def __init__(self) -> None:
        with np.load(ASSETS / "demo_head.npz") as file:
            self._head = {key: file[key] for key in file.files}
        materials = [str(name) for name in self._head["material_names"]]
        painted = [materials.index(name) for name in PAINT]
        quads_F4 = self._head["quads"][np.isin(self._head["material"], painted)].astype(int)
        self._material_F = np.repeat(self._head["material"][np.isin(self._head["material"], painted)], 2)
        self._triangles_F3 = quads_F4[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
        self._rgb = {materials.index(name): to_rgb(colour) for name, colour in PAINT.items()}
        self._rest_V3 = self._head["points"].astype(float)
        self._middle_3 = self._rest_V3[self._head["lip_pairs"].ravel().astype(int)].mean(0)

    def moved(self, weights: Mapping[str, float]) -> np.ndarray:
        """Vertices (V, 3); channels that the head lacks do nothing."""
        points_V3, starts = self._rest_V3.copy(), self._head["key_starts"]
        for k, name in enumerate(self._head["key_names"]):
            some = slice(int(starts[k]), int(starts[k + 1]))
            offsets = self._head["key_offsets"][some] * float(self._head["key_unit_m"])
            points_V3[self._head["key_vertices"][some].astype(int)] += weights.get(str(name), 0.0) * offsets
        x, y, z = (1000 * (points_V3 - self._middle_3)).T
        return np.stack([x, z, -y], axis=1)

    def picture(self, weights: Mapping[str, float]) -> np.ndarray:
        """Image (Y, X, 4) of `MOUTH_VIEW_MM`."""
        vertices_V3 = self.moved(weights)
        corners_F33 = vertices_V3[self._triangles_F3]
        low_2, high_2 = np.transpose(MOUTH_VIEW_MM)
        near_F = ((corners_F33[..., :2].max(1) > low_2) & (corners_F33[..., :2].min(1) < high_2)).all(1)
        rgb_F3 = np.array([self._rgb[int(material)] for material in self._material_F[near_F]])
        # Own corners for every triangle, so that materials keep their edges; light is smooth.
        light_V = np.zeros(len(vertices_V3))
        triangles_F3 = self._triangles_F3[near_F]
        np.add.at(light_V, triangles_F3, daylight(vertices_V3[triangles_F3])[:, None])
        light_V /= np.maximum(np.bincount(triangles_F3.ravel(), minlength=len(light_V)), 1)
        rgb_V3 = np.repeat(rgb_F3, 3, axis=0) * light_V[triangles_F3].reshape(-1, 1)
        own_F3 = np.arange(len(rgb_V3)).reshape(-1, 3)
        return nearest_surface(vertices_V3[triangles_F3].reshape(-1, 3), own_F3, rgb_V3)


def taught(data: Path) -> tuple[tuple[str, ...], Iterator[Said]]:
    """The channels, and the captured validation clips in every manner (T, K)."""
    motion = MotionStore(data / "motion")
    _, gap_K = read_basis(data / "basis.npz", motion.channels)
    mouth = PosedMouth(channels=motion.channels, gap_K=gap_K)
    pairs = paired_records(SpeechStore(data / "speech"), motion)
    return motion.channels, (
        (manners(motion.weights(moved), record.phones, record.n_samples / SAMPLE_RATE_HZ, mouth), record.phones)
        for record, moved in pairs
        if record.split == "valid" and record.phones
    )


def predicted(data: Path, model: str, most: int = 60) -> tuple[tuple[str, ...], Iterator[Said]]:
    """The channels, and a model's motion for validation clips in those of its styles that are shown."""
    animator, speech = SpeechAnimator.load(model), SpeechStore(data / "speech")
    channels = animator.folder.config.channels
    styles = [style for style in animator.folder.config.styles if style in SHOWN]
    records = [record for record in speech.records if record.split == "valid" and record.phones]
    return channels, (
        (
            {name: animator.animate(speech.samples(record), SAMPLE_RATE_HZ, name).weights_TK for name in styles},
            record.phones or [],
        )
        for record in records[:: max(1, len(records) // most)]
    )


def mean_poses(clips: Iterator[Said]) -> dict[str, dict[str, np.ndarray]]:
    """Manner -> sound -> mean weights (K,) at the middles of its phones that are long enough."""
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for by_manner, phones in clips:
        for manner, weights_TK in by_manner.items():
            for sound, names in SOUNDS.items():
                for phone, start, end in phones:
                    frame = round((start + end) / 2 * FPS)
                    if phone in names and end - start >= LEAST_S and frame < len(weights_TK):
                        found.setdefault(manner, {}).setdefault(sound, []).append(weights_TK[frame])
    return {manner: {sound: np.mean(some, 0) for sound, some in rows.items()} for manner, rows in found.items()}


def contact_sheet(path: Path, channels: Sequence[str], poses: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """One row for each manner, one column for each of `SOUNDS`."""
    head, rows = DemoMouth(), [name for name in SHOWN if name in poses]
    figure = Figure(figsize=((MOUTH_PX * len(SOUNDS) + 40) / DPI, (MOUTH_PX + 14) * len(rows) / DPI + 0.3), dpi=DPI)
    figure.subplots_adjust(left=0.025, right=0.998, top=0.93, bottom=0.01, wspace=0.03, hspace=0.03)
    panels = figure.subplots(len(rows), len(SOUNDS), squeeze=False)
    for manner, line in zip(rows, panels, strict=True):
        for sound, axes in zip(SOUNDS, line, strict=True):
            axes.set(xticks=[], yticks=[], xlim=MOUTH_VIEW_MM[0], ylim=MOUTH_VIEW_MM[1], facecolor=PAPER)
            axes.spines[:].set_visible(False)
            if sound in poses[manner]:
                image = head.picture(dict(zip(channels, poses[manner][sound].tolist(), strict=True)))
                axes.imshow(image.clip(0, 1), extent=(*MOUTH_VIEW_MM[0], *MOUTH_VIEW_MM[1]), origin="lower")
        line[0].set_ylabel(manner, fontsize=10)
    for sound, axes in zip(SOUNDS, panels[0], strict=True):
        axes.set_title(sound, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: draw the sheet."""
    parser = argparse.ArgumentParser(prog="python -m trainer.analysis.visemes", description="A sheet of visemes.")
    parser.add_argument("--data", type=Path, required=True, help="prepared data: speech, motion, basis.npz")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--model", help="draw this model's motion instead of the taught motion")
    arguments = parser.parse_args(argv)
    channels, clips = predicted(arguments.data, arguments.model) if arguments.model else taught(arguments.data)
    contact_sheet(arguments.out, channels, mean_poses(clips))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
