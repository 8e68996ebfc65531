# SPDX-License-Identifier: GPL-3.0-or-later
"""Writers of miniature face data sets in their exact on-disk formats, with real vertex counts and few short clips.

    write_vocaset(folder, layout="original" | "exported", subjects=…, sentences=…, seconds=…)
    write_biwi(folder, layout="original" | "exported", subjects=…, sentences=…, seconds=…)
    write_custom(folder, subjects=…, clips=…, seconds=…)

Each writes every sentence of every subject and returns clip name -> `Written`. Speech is real: from ../shared/data if
it exists, else from the repository's demo. Faces follow the speech's envelope: VOCASET's by the bundled model's basis,
BIWI's by a smooth deformation of a generated surface. Everything is deterministic.
"""

from __future__ import annotations

import functools
import io
import json
import pickle
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from trainer.datasets.biwi import BIWI, preprocess
from trainer.datasets.custom import UNITS_M as CUSTOM_UNITS_M
from trainer.datasets.vocaset import VOCASET
from wav2sem_blender.assets import DEFAULT_MODEL, DEMO_SPEECH
from wav2sem_blender.pipeline.checkpoint import ModelFolder

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SPEECH_HZ = 16_000
VOCASET_HZ, VOCASET_FPS = 22_000, 60
BIWI_HZ = 44_100
# 190 x 123 points are BIWI's 23,370 vertices.
BIWI_GRID = (190, 123)
BIWI_SUBJECTS = ("F2", "F1")
CUSTOM_HZ = 48_000
VOCASET_SUBJECTS = (*VOCASET.splits[0].subjects[:2], VOCASET.splits[1].subjects[0], VOCASET.splits[2].subjects[0])


@dataclass(frozen=True)
class Written:
    """One written clip: motion and template in the file's unit and rate, the recording at its own rate."""

    vertices_FV3: np.ndarray
    template_V3: np.ndarray
    samples_N: np.ndarray
    rate_hz: int
    text: str


def write_vocaset(
    folder: Path,
    *,
    layout: str = "original",
    subjects: Sequence[str] = VOCASET_SUBJECTS,
    sentences: Sequence[int] = (1, 21),
    seconds: float = 1.0,
) -> dict[str, Written]:
    """VOCASET's four original files (with pickles as from Python 2), or the exported layout, and sentences.tsv.

    The default subjects are two of training, one of validation and one of test (the last two have sentences 21 to 40).
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips: dict[str, Written] = {}
    templates = {subject: flame_template(subject) for subject in subjects}
    for subject in subjects:
        for sentence in sentences:
            samples_N, text = speech(f"{subject}{sentence}", seconds, VOCASET_HZ)
            n_frames = round(seconds * VOCASET_FPS)
            vertices_FV3 = templates[subject] + flame_motion(subject, samples_N, n_frames)
            name = VOCASET.clip_name.format(subject=subject, sentence=sentence)
            clips[name] = Written(vertices_FV3, templates[subject], samples_N, VOCASET_HZ, text)
    if layout == "exported":
        _write_exported(folder, clips, templates)
    else:
        _write_four_files(folder, clips, templates)
    _write_texts(folder, clips)
    return clips


def write_biwi(
    folder: Path,
    *,
    layout: str = "original",
    subjects: Sequence[str] = BIWI_SUBJECTS,
    sentences: Sequence[int] = (1, 33, 37),
    seconds: float = 0.6,
) -> dict[str, Written]:
    """BIWI's faces (.vl), rigid_scans (.obj) and audio (44.1 kHz), or the exported layout, and sentences.tsv.

    A frame of the original is 280 kB. The default subjects are one of training, which has all three splits, and one of
    Test-B; the default sentences are one of each split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips: dict[str, Written] = {}
    templates = {subject: biwi_template(subject) for subject in subjects}
    for subject in subjects:
        for sentence in sentences:
            samples_N, text = speech(f"{subject}{sentence}", seconds, BIWI_HZ)
            vertices_FV3 = templates[subject] + biwi_motion(samples_N, round(seconds * BIWI.fps))
            name = BIWI.clip_name.format(subject=subject, sentence=sentence)
            clips[name] = Written(vertices_FV3.astype(np.float32), templates[subject], samples_N, BIWI_HZ, text)
    if layout == "exported":
        clips = {name: _preprocessed(clip) for name, clip in clips.items()}
        _write_exported(folder, clips, {name.partition("_")[0]: clip.template_V3 for name, clip in clips.items()})
    else:
        _write_corpus(folder, clips, templates)
    _write_texts(folder, clips)
    return clips


def write_custom(
    folder: Path,
    *,
    subjects: Sequence[str] = ("anna", "ben"),
    clips: int = 3,
    seconds: float = 1.0,
    fps: int = 60,
    unit: str = "m",
    n_vertices: int = 300,
    split: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Written]:
    """A studio's folder: SUBJECT_001 … of each subject on a mesh of `n_vertices`, with a template per subject.

    The mesh is an even subset of FLAME's vertices; with n_vertices=5023 it is FLAME, as dataset.json then says.
    """
    for name in ("wav", "vertices", "templates"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    picked = np.linspace(0, VOCASET.n_vertices - 1, n_vertices).astype(int)
    written: dict[str, Written] = {}
    for subject in subjects:
        template_V3 = flame_template(subject)[picked] / np.float32(CUSTOM_UNITS_M[unit])
        np.save(folder / "templates" / f"{subject}.npy", template_V3)
        for number in range(1, clips + 1):
            name = f"{subject}_{number:03d}"
            samples_N, text = speech(name, seconds, CUSTOM_HZ)
            offsets_FV3 = flame_motion(subject, samples_N, round(seconds * fps))[:, picked]
            vertices_FV3 = template_V3 + offsets_FV3 / np.float32(CUSTOM_UNITS_M[unit])
            np.save(folder / "vertices" / f"{name}.npy", vertices_FV3)
            sf.write(folder / "wav" / f"{name}.wav", samples_N, CUSTOM_HZ, subtype="PCM_16")
            written[name] = Written(vertices_FV3, template_V3, samples_N, CUSTOM_HZ, text)
    description = {
        "fps": fps,
        "unit": unit,
        "topology": "flame" if n_vertices == VOCASET.n_vertices else "miniature",
        "subjects": {subject: [name for name in written if name.startswith(f"{subject}_")] for subject in subjects},
    }
    if split is not None:
        description["split"] = {name: list(names) for name, names in split.items()}
    (folder / "dataset.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    _write_texts(folder, written)
    return written


def _write_corpus(folder: Path, clips: Mapping[str, Written], templates: Mapping[str, np.ndarray]) -> None:
    for name in ("audio", "rigid_scans"):
        (folder / name).mkdir(exist_ok=True)
    for subject, template_V3 in templates.items():
        write_obj(folder / "rigid_scans" / f"{subject}.obj", template_V3, biwi_triangles())
    for name, clip in clips.items():
        frames = folder / "faces" / name.replace("_", "/")
        frames.mkdir(parents=True, exist_ok=True)
        for number, vertices_V3 in enumerate(clip.vertices_FV3, start=1):
            header = BIWI.n_vertices.to_bytes(4, "little")
            (frames / f"frame_{number:03d}.vl").write_bytes(header + vertices_V3.astype("<f4").tobytes())
        sf.write(folder / "audio" / f"{name}.wav", clip.samples_N, clip.rate_hz, subtype="PCM_16")


def _preprocessed(clip: Written) -> Written:
    faces_G3 = biwi_triangles()
    frames = np.stack([preprocess(vertices_V3, faces_G3) for vertices_V3 in clip.vertices_FV3])
    return replace(clip, vertices_FV3=frames, template_V3=preprocess(clip.template_V3, faces_G3))


def write_obj(path: Path, vertices_V3: np.ndarray, triangles_G3: np.ndarray) -> None:
    """A mesh with texture coordinates, like the scans."""
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices_V3.tolist()]
    lines += ["vt 0 0", *(f"f {a}/1 {b}/1 {c}/1" for a, b, c in (triangles_G3 + 1).tolist())]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _write_four_files(folder: Path, clips: Mapping[str, Written], templates: Mapping[str, np.ndarray]) -> None:
    rows: dict[str, dict] = {}
    audio: dict[str, dict] = {}
    first = 0
    for name, clip in clips.items():
        subject, _, sequence = name.rpartition("_")
        n_frames = len(clip.vertices_FV3)
        rows.setdefault(subject, {})[sequence] = {frame: first + frame for frame in range(n_frames)}
        audio.setdefault(subject, {})[sequence] = {"audio": clip.samples_N, "sample_rate": clip.rate_hz}
        first += n_frames
    np.save(folder / "data_verts.npy", np.concatenate([clip.vertices_FV3 for clip in clips.values()]))
    write_python2_pickle(folder / "subj_seq_to_idx.pkl", rows)
    write_python2_pickle(folder / "raw_audio_fixed.pkl", audio)
    write_python2_pickle(folder / "templates.pkl", dict(templates))


def _write_exported(folder: Path, clips: Mapping[str, Written], templates: Mapping[str, np.ndarray]) -> None:
    for name in ("vertices_npy", "wav"):
        (folder / name).mkdir(exist_ok=True)
    for name, clip in clips.items():
        np.save(folder / "vertices_npy" / f"{name}.npy", clip.vertices_FV3.reshape(len(clip.vertices_FV3), -1))
        sf.write(folder / "wav" / f"{name}.wav", clip.samples_N, clip.rate_hz, subtype="PCM_16")
    write_python2_pickle(folder / "templates.pkl", dict(templates))


def _write_texts(folder: Path, clips: Mapping[str, Written]) -> None:
    lines = [f"{name}\t{clip.text}\n" for name, clip in clips.items()]
    (folder / "sentences.tsv").write_text("".join(lines), encoding="utf-8")


class _Python2Pickler(pickle._Pickler):
    """Protocol 2 as from Python 2 with NumPy 1: byte strings everywhere, and numpy.core's names."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value: Any) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + len(raw).to_bytes(4, "little") + raw)

    dispatch[str] = dispatch[bytes] = save_string

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            state = (1, value.shape, value.dtype, False, value.tobytes())
            return _Global("numpy.core.multiarray", "_reconstruct"), (np.ndarray, (0,), b"b"), state
        if isinstance(value, np.dtype):
            return _Global("numpy", "dtype"), (value.str[1:], 0, 1), (3, value.str[0], None, None, None, -1, -1, 0)
        return NotImplemented

    def save_global(self, value: Any, name: str | None = None) -> None:
        self.write(f"cnumpy\n{value.__name__}\n".encode())

    dispatch[type] = save_global

    def save_reduce(self, func: Any, args: Any, state: Any = None, *rest: Any, obj: Any = None) -> None:
        self.write(f"c{func.module}\n{func.name}\n".encode())
        self.save(args)
        self.write(b"R")
        self.memoize(obj)
        self.save(state)
        self.write(b"b")


@dataclass(frozen=True)
class _Global:
    module: str
    name: str

    def __call__(self) -> None:
        """pickle asks for a callable."""


def write_python2_pickle(path: Path, value: Any) -> None:
    """Write dicts, numbers, strings and arrays as Python 2's pickle would."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    path.write_bytes(buffer.getvalue())


@functools.cache
def _recordings() -> list[tuple[Path, str]]:
    """(file, text) of whole recordings."""
    table = SHARED / "vctk" / "transcripts.tsv"
    if not table.is_file():
        return [(DEMO_SPEECH, "the demo's speech")]
    lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    return [
        (SHARED / "vctk" / f"{line[0]}.flac", line[1])
        for line in lines
        if (SHARED / "vctk" / f"{line[0]}.flac").is_file()
    ]


def _number(key: str) -> int:
    return zlib.crc32(key.encode()) % 9973


def speech(key: str, seconds: float, rate_hz: int) -> tuple[np.ndarray, str]:
    """int16 (N,) of exactly `seconds` at `rate_hz`, chosen by `key`, and the recording's text."""
    recordings = _recordings()
    path, text = recordings[_number(key) % len(recordings)]
    samples_S, _ = sf.read(path, dtype="float32")
    onset = int(np.argmax(np.abs(samples_S) > 0.2 * np.abs(samples_S).max()))
    shift = _number(key) if len(recordings) == 1 else 0
    looped_S = np.resize(np.roll(samples_S, -onset - shift), int(np.ceil(seconds * SPEECH_HZ)) + 1)
    resampled_N = soxr.resample(looped_S, SPEECH_HZ, rate_hz)[: round(seconds * rate_hz)]
    return np.round(np.clip(resampled_N, -1, 1) * 32767).astype(np.int16), text


def envelope(samples_N: np.ndarray, n_frames: int) -> np.ndarray:
    """Loudness (F,) in 0 … 1, smoothed over a few frames."""
    parts = np.array_split(samples_N.astype(float), n_frames)
    level_F = np.sqrt([np.mean(part**2) for part in parts])
    smooth_F = np.convolve(np.pad(level_F, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    return smooth_F / max(1e-9, smooth_F.max())


@functools.cache
def _flame_neutral() -> np.ndarray:
    """(5023, 3) m: FLAME's template if it exists, else an ellipsoid of its size."""
    flame = SHARED / "flame2023_open" / "flame2023_open.npz"
    if flame.is_file():
        with np.load(flame) as file:
            return file["v_template"].astype(np.float32)
    turn = np.arange(VOCASET.n_vertices) * np.pi * (3 - np.sqrt(5))
    height = np.linspace(-1, 1, VOCASET.n_vertices)
    ring = np.sqrt(1 - height**2)
    return np.stack([0.08 * ring * np.sin(turn), 0.14 * height, 0.1 * ring * np.cos(turn)], axis=1).astype(np.float32)


def flame_template(subject: str) -> np.ndarray:
    """The subject's rest face, float32 (5023, 3) m: the neutral one, a few per cent wider or longer."""
    wider, longer = 0.04 * np.sin(_number(subject) * np.array([1.0, 2.0]))
    return (_flame_neutral() * np.array([1 + wider, 1 + longer, 1])).astype(np.float32)


@functools.cache
def _basis() -> dict[str, np.ndarray]:
    model = ModelFolder.open(DEFAULT_MODEL)
    basis_KV3 = model.basis()
    assert basis_KV3 is not None
    return dict(zip(model.config.channels, basis_KV3, strict=True))


def flame_motion(subject: str, samples_N: np.ndarray, n_frames: int) -> np.ndarray:
    """Offsets float32 (F, 5023, 3) m: the jaw follows the envelope, the lips its earlier and later values; the
    amplitude depends on the subject."""
    loud_F = envelope(samples_N, n_frames) * (0.8 + 0.2 * np.sin(_number(subject)))
    weights = {
        "jawOpen": 0.6 * loud_F,
        "mouthFunnel": 0.5 * np.roll(loud_F, 3),
        "mouthSmileLeft": 0.3 * (1 - loud_F),
        "mouthSmileRight": 0.3 * (1 - loud_F),
        "mouthUpperUpLeft": 0.4 * np.roll(loud_F, -2),
        "mouthUpperUpRight": 0.4 * np.roll(loud_F, -2),
    }
    basis_KV3 = np.stack([_basis()[name] for name in weights])
    return np.einsum("kf,kvd->fvd", np.stack(list(weights.values())), basis_KV3, optimize=True).astype(np.float32)


@functools.cache
def biwi_triangles() -> np.ndarray:
    """Triangles (46116, 3) of the generated surface."""
    rows, columns = BIWI_GRID
    corner = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]
    return np.concatenate([np.stack([a, d, b], axis=-1), np.stack([b, d, c], axis=-1)]).reshape(-1, 3)


def biwi_template(subject: str) -> np.ndarray:
    """A bulging surface of BIWI's vertex count, float32 (23370, 3): millimetres before a camera, y down, z away."""
    rows, columns = BIWI_GRID
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    wider = 1 + 0.04 * np.sin(_number(subject))
    mask = np.stack(
        [75 * wider * x, 110 * y, 90 * (x**2 + 0.4 * y**2) - 20 * np.exp(-20 * (x**2 + y**2)) + 900], axis=-1
    )
    return mask.reshape(-1, 3).astype(np.float32)


def biwi_motion(samples_N: np.ndarray, n_frames: int) -> np.ndarray:
    """Offsets (F, 23370, 3) mm: the lower half opens by the envelope, most about the mouth."""
    rows, columns = BIWI_GRID
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    field_V = (np.exp(-6 * (x**2 + (y - 0.6) ** 2)) * (y > 0.4)).reshape(-1, 1)
    return 15 * envelope(samples_N, n_frames)[:, None, None] * field_V * np.array([0.0, 1.0, 0.2])
