# SPDX-License-Identifier: GPL-3.0-or-later
"""The ground truth of an analysis: recordings with known phones, and recordings with known motion.

Shapes: S samples at 16 kHz, T animation frames, K channels, V vertices.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import soundfile as sf
from tqdm import tqdm

from wav2sem_blender.errors import MissingFileError
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ
from wav2sem_blender.pipeline.motion import Motion

from ..datasets.corpora import Clip, list_clips
from ..datasets.face_data import FaceClip, FaceData
from ..datasets.librispeech import LibriSpeech, Utterance, is_librispeech
from ..datasets.opening import open_face_data
from ..motion.curves import FACEGOOD_TO_ARKIT, FPS, MotionStore, facegood
from ..motion.landmarks import CHIN, inner_gap, landmark_basis, stabilise, tracked_rest_pose
from ..speech.align import Aligner, published_times
from ..speech.phones import Timing
from ..speech.prepared import SpeechStore
from .protocol import Analyze

FLAME_FILE = Path("flame2023_open") / "flame2023_open.npz"
_T = TypeVar("_T")
_Recording: TypeAlias = Clip | Utterance


@dataclass(frozen=True, kw_only=True)
class AlignedUtterance:
    """A recording whose phones are known; `samples()` reads it: float32 (S,), 16 kHz."""

    name: str
    corpus: str
    split: str
    text: str
    phones: list[Timing]
    samples: Callable[[], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class TrueMotion:
    """A recording and the true motion of its face.

    `offsets(predicted)` gives the true displacements from rest (T, V, 3), or None where only the lips were tracked or
    the prediction has no basis; `opening_mm_T` then has the inner-lip opening. Lengths are in the unit of the data.
    """

    name: str
    style: str
    samples_S: np.ndarray
    phones: list[Timing] | None
    fps: float
    offsets: Callable[[Motion], np.ndarray | None]
    opening_mm_T: np.ndarray | None = None
    rest_V3: np.ndarray | None = None


def read_utterances(data: Path, config: Analyze, out: Path) -> list[AlignedUtterance]:
    """Transcribed recordings of prepared speech, of LibriSpeech's layout, or of the development corpora.

    Phones without published times are aligned and kept in OUT/alignments.tsv.gz for the next run.

    Raises:
        MissingFileError: `data` holds none of them.
    """
    if (data / "speech" / "clips.json").is_file():
        store = SpeechStore(data / "speech")
        timed = [record for record in store.records if record.text and record.phones]
        chosen = _spread([r for r in timed if not config.corpora or r.corpus in config.corpora], config.max_utterances)
        return [
            AlignedUtterance(name=r.name, corpus=r.corpus, split=r.split, text=r.text or "", phones=r.phones or [],
                      samples=partial(store.samples, r))
            for r in chosen
        ]  # fmt: skip
    clips = [
        clip
        for clip in _recordings(data, config.corpora)
        if clip.text and (not config.corpora or clip.corpus in config.corpora)
    ]
    clips = _spread(clips, config.max_utterances)
    phones = _phone_times(clips, out)
    return [
        AlignedUtterance(name=clip.name, corpus=clip.corpus, split=clip.split, text=clip.text or "",
                         phones=phones[clip.name], samples=partial(_read, clip.path))
        for clip in clips
        if clip.name in phones
    ]  # fmt: skip


def true_motions(data: Path, config: Analyze) -> tuple[list[TrueMotion], str]:
    """Clips with true motion, and a sentence that names their source, or says why there are none."""
    if config.faces:
        faces = open_face_data(config.faces, data)
        clips = _spread([clip for clip in faces.clips if clip.split == "test"], config.clips)
        return [_from_face_data(faces, clip, config.longest_s) for clip in clips], f"{faces.name}, test split"
    if (data / "motion" / "clips.json").is_file() and (data / "speech" / "clips.json").is_file():
        return _prepared(data, config), "the held-out clips of the prepared motion"
    try:
        recordings = list(list_clips(data))
    except MissingFileError:
        return [], "The data hold no faces: use an experiment with faces=…, or prepare motion."
    found = [*_tracked(data, recordings, config), *_animated(data, recordings, config)]
    return found, "held-out clips: GRID with tracked lips, FACEGOOD with the artists' curves"


def flame_mesh(data: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """FLAME's rest face (V, 3) and triangles (F, 3) from the data folder, or None."""
    if not (data / FLAME_FILE).is_file():
        return None
    with np.load(data / FLAME_FILE) as file:
        return file["v_template"], file["faces"]


def _spread(items: Sequence[_T], count: int) -> list[_T]:
    """At most `count` of the items, evenly spaced; 0 takes all."""
    if not count or len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _recordings(data: Path, corpora: Sequence[str]) -> list[_Recording]:
    if is_librispeech(data):
        subsets = [data / name for name in corpora if (data / name).is_dir()] or [data]
        return [record for subset in subsets for record in LibriSpeech(subset).records]
    return list(list_clips(data))


def _phone_times(clips: Sequence[_Recording], out: Path) -> dict[str, list[Timing]]:
    ours = published_times(out)
    theirs: dict[str, list[Timing]] = {}
    for folder in sorted({clip.path.parent for clip in clips}):
        theirs |= published_times(folder)
    missing = [clip for clip in clips if clip.name not in ours and clip.name not in theirs]
    if missing:
        aligner = Aligner()
        for clip in tqdm(missing, desc="align", unit="clip"):
            samples_S, _ = sf.read(clip.path, dtype="int16")
            found = aligner(samples_S, clip.text or "") or []
            ours[clip.name] = [(phone, round(start, 3), round(end, 3)) for phone, start, end in found]
        write_times(out / "alignments.tsv.gz", ours)
    return {name: phones for name, phones in (ours | theirs).items() if phones}


def write_times(path: Path, times: dict[str, list[Timing]]) -> None:
    """Write phone times in the layout that `align.published_times` reads."""
    lines = ["clip\ttier\tstart_s\tend_s\tlabel"]
    lines += [f"{name}\tphones\t{s:.3f}\t{e:.3f}\t{phone}" for name, some in times.items() for phone, s, e in some]
    with gzip.open(path, "wt", encoding="utf-8") as table:
        table.write("\n".join(lines) + "\n")


def _read(path: Path) -> np.ndarray:
    return sf.read(path, dtype="float32")[0]


def _weights_as_offsets(weights_TK: np.ndarray, channels: Sequence[str], predicted: Motion) -> np.ndarray | None:
    """Channel weights on the prediction's own basis; None where it lacks the channels."""
    if predicted.basis_KV3 is None or not set(channels) <= set(predicted.channels):
        return None
    columns = [predicted.channels.index(channel) for channel in channels]
    return np.tensordot(weights_TK, predicted.basis_KV3[columns], 1)


def _from_face_data(faces: FaceData, clip: FaceClip, longest_s: float) -> TrueMotion:
    template_V3 = faces.template(clip.subject)
    offsets_TV3 = faces.vertices(clip)[: int(longest_s * faces.fps)] - template_V3
    return TrueMotion(
        name=clip.name,
        style=clip.subject,
        samples_S=faces.samples(clip)[: int(longest_s * SAMPLE_RATE_HZ)],
        phones=None,
        fps=faces.fps,
        offsets=lambda predicted: offsets_TV3,
        rest_V3=template_V3,
    )


def _prepared(data: Path, config: Analyze) -> list[TrueMotion]:
    store, motion = SpeechStore(data / "speech"), MotionStore(data / "motion")
    recordings = {record.name: record for record in store.records}
    held_out = [moved for moved in motion.records if moved.split == "valid" and moved.name in recordings]
    known = []
    for style in sorted({moved.style for moved in held_out}):
        for moved in _spread([m for m in held_out if m.style == style], config.clips):
            record, weights_TK = recordings[moved.name], motion.weights(moved)[: int(config.longest_s * FPS)]
            known.append(
                TrueMotion(
                    name=moved.name,
                    style=style,
                    samples_S=store.samples(record)[: int(config.longest_s * SAMPLE_RATE_HZ)],
                    phones=_before(record.phones, config.longest_s),
                    fps=FPS,
                    offsets=partial(_weights_as_offsets, weights_TK, motion.channels),
                )
            )
    return known


def _animated(data: Path, clips: Sequence[Clip], config: Analyze) -> Iterator[TrueMotion]:
    """FACEGOOD's held-out sequence as its artists animated it."""
    paths = {clip.name: clip.path for clip in clips if clip.corpus == "facegood"}
    channels = tuple(FACEGOOD_TO_ARKIT)
    for name, style, split, weights_TK in facegood(data / "facegood", channels) if paths else ():
        if split == "valid" and name in paths:
            yield TrueMotion(
                name=name,
                style=style,
                samples_S=_read(paths[name])[: int(config.longest_s * SAMPLE_RATE_HZ)],
                phones=None,
                fps=FPS,
                offsets=partial(_weights_as_offsets, weights_TK[: int(config.longest_s * FPS)], channels),
            )


def _tracked(data: Path, clips: Sequence[Clip], config: Analyze) -> Iterator[TrueMotion]:
    """Held-out GRID clips: the tracked inner lips, nothing else of the face."""
    held_out = [clip for clip in clips if clip.corpus.startswith("grid") and clip.split == "valid"]
    if not held_out or not (data / FLAME_FILE).is_file():
        return
    with np.load(data / FLAME_FILE) as file:
        flame = {key: file[key] for key in file.files}
    rigid_R3 = landmark_basis(flame, np.zeros((1, len(flame["v_template"]), 3)), np.zeros((len(CHIN), 3))).rigid_R3
    aligner = Aligner()
    for clip in _spread(held_out, config.clips):
        used_TP3, found_T, fps = stabilise(clip.path.with_suffix(".npz"), rigid_R3)
        rest_gap = float(inner_gap(tracked_rest_pose(used_TP3, found_T)[None])[0])
        samples_S = _read(clip.path)
        phones = aligner((samples_S * 32767).astype(np.int16), clip.text or "")
        yield TrueMotion(
            name=clip.name,
            style=clip.speaker,
            samples_S=samples_S[: int(config.longest_s * SAMPLE_RATE_HZ)],
            phones=_before(phones, config.longest_s),
            fps=fps,
            offsets=lambda predicted: None,
            opening_mm_T=1000 * (inner_gap(used_TP3) - rest_gap)[: int(config.longest_s * fps)],
        )


def _before(phones: list[Timing] | None, end_s: float) -> list[Timing] | None:
    return None if phones is None else [timing for timing in phones if timing[2] <= end_s]
