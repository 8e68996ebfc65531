# SPDX-License-Identifier: GPL-3.0-or-later
"""The layout that FaceFormer and CodeTalker train from, for VOCASET and BIWI: reader and writer.

    vertices_npy/CLIP.npy    float (F, 3V), at the camera's rate: VOCASET 60 fps, BIWI 25 fps
    wav/CLIP.wav             any rate
    templates.pkl            subject -> (V, 3) or (3V,)
    sentences.tsv            optional: CLIP<tab>text

Shapes: F camera frames, V vertices.
"""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from tqdm import tqdm

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.files import FolderKind, atomic_path
from wav2sem_blender.pipeline import restricted_pickle
from wav2sem_blender.pipeline.audio import Speech
from wav2sem_blender.pipeline.sound_file import open_sound

from .face_data import SENTENCES, FaceClip, FaceData, sentence_texts

TEMPLATES = "templates.pkl"
VERTICES_FOLDER, RECORDINGS_FOLDER = "vertices_npy", "wav"
_FOLDER = FolderKind(
    made_by="an export of captured faces", names=(VERTICES_FOLDER, RECORDINGS_FOLDER, TEMPLATES, SENTENCES)
)
# If more clips than this have another take's audio, the layout or its frame rate is misread.
MAX_SKIPPED_FRACTION = 0.1


@dataclass(frozen=True, kw_only=True)
class Split:
    """One published split: these subjects' sentences of these numbers."""

    name: str
    subjects: tuple[str, ...]
    sentences: range


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the publications fix about a data set; `clip_name` is a format of `subject` and `sentence` (a number)."""

    name: str
    fps: int
    every: int
    n_vertices: int
    unit: str
    topology: str
    clip_name: str
    splits: tuple[Split, ...]

    @property
    def styles(self) -> tuple[str, ...]:
        """Training subjects, in the published one-hot order."""
        return self.splits[0].subjects


class PublishedFaces(FaceData):
    """A published data set in any layout: its splits over the clips on disk."""

    def __init__(self, published: Published, folder: Path, motions: set[str], recordings: set[str]) -> None:
        self.published, self.folder = published, folder
        self.name, self.fps, self.n_vertices = published.name, published.fps, published.n_vertices
        self.unit, self.topology, self.styles = published.unit, published.topology, published.styles
        clips, skipped = split_clips(published, motions, recordings, sentence_texts(folder))
        if not clips:
            raise MissingFileError(
                "{folder}: no clip of the published splits is here; one would be called {example}",
                folder=folder,
                example=published.clip_name.format(subject=self.styles[0], sentence=1),
            )
        faults = {clip: fault for clip in clips if (fault := self._different_lengths(clip))}
        if len(faults) > MAX_SKIPPED_FRACTION * len(clips):
            raise UserError(
                "{folder}: {n_faults} of {n_clips} clips do not fit their recordings, the first: {first} at {fps} "
                "fps; pair every clip with its own recording, captured at that rate",
                folder=folder,
                n_faults=len(faults),
                n_clips=len(clips),
                first=next(iter(faults.values())),
                fps=self.camera_fps,
            )
        self.clips = tuple(clip for clip in clips if clip not in faults)
        self.skipped = skipped | dict.fromkeys(faults.values(), 1)
        for subject in sorted({clip.subject for clip in self.clips}):
            self.template(subject)

    @property
    def camera_fps(self) -> int:
        """The rate that the set was captured at."""
        return self.published.fps * self.published.every

    @abstractmethod
    def camera_vertices(self, clip: FaceClip) -> np.ndarray:
        """Every captured frame, float (F, V, 3) or (F, 3V)."""

    @abstractmethod
    def recording(self, clip: FaceClip) -> tuple[np.ndarray, int]:
        """Samples as recorded, int16 (N,) or (N, C), and their rate in Hz."""

    def _vertices(self, clip: FaceClip) -> np.ndarray:
        return self.camera_vertices(clip)[:: self.published.every]


class ExportedFaces(PublishedFaces):
    """`vertices_npy`, `wav` and `templates.pkl`."""

    def __init__(self, published: Published, folder: Path) -> None:
        for name in (VERTICES_FOLDER, RECORDINGS_FOLDER, TEMPLATES):
            if not (folder / name).exists():
                raise MissingFileError(
                    "{folder} is missing; {data} needs it",
                    folder=folder / name,
                    data=published.name,
                )
        motions = {path.stem for path in (folder / VERTICES_FOLDER).glob("*.npy")}
        recordings = {path.stem for path in (folder / RECORDINGS_FOLDER).glob("*.wav")}
        self._templates = restricted_pickle.read_templates(folder / TEMPLATES)
        super().__init__(published, folder, motions, recordings)

    def files(self) -> list[Path]:
        clips = [clip.name for clip in self.clips]
        return [self.folder / TEMPLATES, *map(self._motion, clips), *map(self._recording, clips)]

    def camera_vertices(self, clip: FaceClip) -> np.ndarray:
        return load_array(self._motion(clip.name))

    def recording(self, clip: FaceClip) -> tuple[np.ndarray, int]:
        return sf.read(self._recording(clip.name), dtype="int16")

    def _lengths_s(self, clip: FaceClip) -> tuple[float, float]:
        return sound_length_s(self._recording(clip.name)), len(self.camera_vertices(clip)) / self.camera_fps

    def _speech(self, clip: FaceClip) -> Speech:
        return Speech.from_file(self._recording(clip.name))

    def _template(self, subject: str) -> np.ndarray:
        return self._templates[subject]

    def _motion(self, name: str) -> Path:
        return self.folder / VERTICES_FOLDER / f"{name}.npy"

    def _recording(self, name: str) -> Path:
        return self.folder / RECORDINGS_FOLDER / f"{name}.wav"


def is_exported(folder: Path) -> bool:
    """Whether the folder has this layout."""
    return (folder / VERTICES_FOLDER).is_dir()


def write_exported(data: PublishedFaces, out: Path) -> None:
    """Write every clip of the splits and the subjects' templates; existing files stay.

    Every clip is read as training reads it, so that NaN or a wrong template is found here (UserError). A file gets its
    name when it is complete, so that an interrupted export can go on.
    """
    _FOLDER.claim(out)
    for name in (VERTICES_FOLDER, RECORDINGS_FOLDER):
        (out / name).mkdir(exist_ok=True)

    def write_vertices(clip: FaceClip, file: Path) -> None:
        data.vertices(clip)
        frames = np.asarray(data.camera_vertices(clip), np.float32)
        np.save(file, frames.reshape(len(frames), -1))

    def write_recording(clip: FaceClip, file: Path) -> None:
        samples, rate_hz = data.recording(clip)
        sf.write(file, samples, rate_hz, format="WAV", subtype="PCM_16")

    for clip in tqdm(data.clips, desc=f"export {data.name}", unit="clip"):
        _write_once(out / VERTICES_FOLDER / f"{clip.name}.npy", lambda file, clip=clip: write_vertices(clip, file))
        _write_once(out / RECORDINGS_FOLDER / f"{clip.name}.wav", lambda file, clip=clip: write_recording(clip, file))
    subjects = sorted({clip.subject for clip in data.clips})
    content = pickle.dumps({subject: data.template(subject) for subject in subjects}, protocol=2)
    _write_once(out / TEMPLATES, lambda file: file.write_bytes(content))
    texts = "".join(f"{clip.name}\t{clip.text}\n" for clip in data.clips if clip.text)
    if texts:
        _write_once(out / SENTENCES, lambda file: file.write_text(texts, encoding="utf-8"))
    print(
        f"{out}: {len(data.clips)} clips of {data.name}",
        *(f"{reason}: {n}" for reason, n in data.skipped.items()),
        sep="; ",
    )


def _write_once(target: Path, write: Callable[[Path], object]) -> None:
    if target.exists():
        return
    with atomic_path(target) as unfinished:
        write(unfinished)


def load_array(path: Path) -> np.ndarray:
    """An .npy file, memory-mapped, without pickled objects.

    Raises:
        MissingFileError: no such file.
        UserError: it is cut off, not an array, or an array of objects; the message has its size in bytes.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise MissingFileError("{path}: there is no such file", path=path) from error
    except (ValueError, EOFError, OSError) as error:
        size = path.stat().st_size
        raise UserError(
            "{path}: its {size} bytes are not a whole .npy array ({error}); copy it again",
            path=path.name,
            size=size,
            error=error,
        ) from error


def sound_length_s(path: Path) -> float:
    """Seconds, by the file's header; errors are those of `open_sound`."""
    with open_sound(path) as sound:
        return sound.frames / sound.samplerate


def split_clips(
    published: Published, motions: set[str], recordings: set[str], texts: Mapping[str, str]
) -> tuple[list[FaceClip], dict[str, int]]:
    """The splits' clips with both motion and recording, and the number left out by reason."""
    clips: list[FaceClip] = []
    skipped: Counter[str] = Counter()
    named: set[str] = set()
    for split in published.splits:
        for subject in split.subjects:
            for sentence in split.sentences:
                name = published.clip_name.format(subject=subject, sentence=sentence)
                named.add(name)
                if name in motions and name in recordings:
                    text = texts.get(name) or texts.get(f"{subject}/{sentence}")
                    clips.append(FaceClip(name=name, subject=subject, split=split.name, text=text))
                elif name in motions or name in recordings:
                    skipped["recording missing" if name in motions else "motion missing"] += 1
                else:
                    skipped["sequence missing"] += 1
    outside = len((motions | recordings) - named)
    if outside:
        skipped["outside the published splits"] = outside
    return clips, dict(skipped)
