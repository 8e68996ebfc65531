# SPDX-License-Identifier: GPL-3.0-or-later
"""The main path: speech -> sentence vectors -> fused features -> decoder -> Motion. Read `_animate` first.

Shapes: S samples at 16 kHz, L encoder frames (50 Hz), T animation frames, R memory frames (see `FrameGrid`), E sentence
space, M memory width, N styles, K channels, V vertices.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

import numpy as np

from ..assets import DEFAULT_MODEL
from ..errors import Text, UserError, is_out_of_memory, library_text
from ..library_faults import fault_of
from .audio import Speech
from .checkpoint import NO_FACE, ModelConfig, ModelFolder, Wav2SemFolder, check_weights, open_folder
from .face_names import listed
from .listening import Listener, listener_for
from .motion import Motion
from .phones import Phones
from .sound_file import StageProgress
from .steering import Steering
from .words.heard import doubts, heard_track, load_followed
from .words.pronunciation import known_language
from .words.spoken import read_transcript, track_of
from .words.track import Track
from .words.transcript import Transcript

if TYPE_CHECKING:
    from .engine_onnx import OnnxEngine
    from .engine_torch import TorchEngine
    from .hosts.protocol import Decoder

Style = int | str | Sequence[float] | np.ndarray
Follow = Track | Callable[[Phones], Track] | str | os.PathLike[str]

ENGINES = ("auto", "onnx", "torch")
MAX_LISTED = 40  # styles in a message
# Takes, presets and scripts of 0.1.0 name the styles of its bundled model, which were named after their data sets.
_RENAMED = {"grid_s1": "natural", "facegood": "artist"}


class _Read(NamedTuple):
    """A track that was read, and its file's name."""

    track: Track
    name: str


class _Said(NamedTuple):
    """What a transcript says; "" is a language to be guessed."""

    transcript: Transcript
    language: str


class SpeechAnimator:
    """A loaded model. `notes` tells the user what was done differently than asked."""

    def __init__(self, folder: ModelFolder, engine: OnnxEngine | TorchEngine) -> None:
        self.folder = folder
        self.engine = engine
        self._listener = listener_for(folder, engine)
        self.notes = self._listener.notes
        self._n_notes_of_model = len(self.notes)
        self._notes_of_speech: list[Text] = []
        self._notes_of_loading: list[Text] = []
        host = folder.config.host
        self._decoder: Decoder = (
            host.decoder(folder.tensors("decoder.")) if host.IN_NUMPY else cast("TorchEngine", engine)
        )
        self._steering: Steering | None = None
        self._basis_KV3 = folder.basis()
        self._wav2sem_config = folder.config.wav2sem

    @classmethod
    def load(
        cls, model: str | os.PathLike[str] = "default", engine: str = "auto", device: str = "auto"
    ) -> SpeechAnimator:
        """Load a model; a folder with a Wav2Sem alone gives a `SentenceEncoder`.

        Args:
            model: "default" (the bundled model) or a model folder.
            engine: "onnx", "torch" or "auto": ONNX Runtime, unless the model has no ONNX file, a GPU is asked for, or
                only torch can be loaded.
            device: "auto", "cuda", "mps", "xpu" or "cpu".

        Raises:
            MissingFileError: No model is there.
            UserError: The model is damaged, the engine or device is unknown, or the engine is not installed.
        """
        folder = open_folder(DEFAULT_MODEL if str(model) == "default" else Path(model))
        notes: list[Text] = []
        name = loaded_engine(isinstance(folder, ModelFolder) and folder.has_onnx, engine, device, notes)
        if isinstance(folder, Wav2SemFolder):
            return SentenceEncoder(folder, name, device)
        check_weights(folder)
        if name == "onnx":
            from .engine_onnx import OnnxEngine

            return cls(folder, OnnxEngine(folder))
        from .engine_torch import TorchEngine

        animator = cls(folder, TorchEngine(folder, device))
        animator._notes_of_loading = notes
        return animator

    def animate(
        self,
        waveform: np.ndarray,
        sample_rate: float,
        style: Style = 0,
        semantic_strength: float = 1.0,
        progress: StageProgress | None = None,
        articulation: float = 0.0,
        seed: int = 0,
        features: str | os.PathLike[str] | None = None,
        track: Follow | None = None,
        transcript: str | os.PathLike[str] | Transcript | None = None,
        language: str = "",
    ) -> Motion:
        """Animate samples in memory.

        Args:
            waveform: (N,) or (C, N), float or integer.
            sample_rate: In Hz, any.
            style: Index, name, or weights (N,) of the model's speaking styles.
            semantic_strength: Scale of F_s; 0 is off, 1 as trained.
            progress: Called with a stage ("audio", "semantics", "features", "motion") and its fraction done.
            articulation: -1 is mumbled, 0 the style as it is, 1 over-articulated; see `articulated`.
            seed: Of the noise, for hosts that sample their motion; it is kept in `Motion.info`.
            features: A file of features, for a model that does not hear the recording itself.
            track: What the mouth follows beside the sound: a track, a file with one, or what makes one of the heard
                phones.
            transcript: What is said: a file, a text, or a transcript. It gives `Motion.track`, which the mouth follows
                if the model can; with `track` it is not read.
            language: Of the transcript, such as "de"; "" guesses it.

        Raises:
            UserError: The audio or the transcript cannot be used, there is no such style, or the model has no
                articulation, cannot follow a track, or does not tell phones, which a transcript needs.
        """
        with Speech.from_array(waveform, sample_rate) as speech:
            speech.features = None if features is None else Path(features)
            follow = self._followed(track, transcript, language)
            return self._animate(speech, style, semantic_strength, progress or _silent, articulation, seed, follow)

    def animate_file(
        self,
        path: str | os.PathLike[str],
        style: Style = 0,
        semantic_strength: float = 1.0,
        progress: StageProgress | None = None,
        temp_dir: str | os.PathLike[str] | None = None,
        articulation: float = 0.0,
        seed: int = 0,
        features: str | os.PathLike[str] | None = None,
        track: Follow | None = None,
        transcript: str | os.PathLike[str] | Transcript | None = None,
        language: str = "",
    ) -> Motion:
        """Animate a sound file of any length with flat memory.

        As `animate`; `temp_dir` takes the decoded samples, 230 MB an hour. `features` is a file of features for a model
        that does not hear the recording itself, unless it is beside it. OSError for an unreadable file.
        """
        with Speech.from_file(path, temp_dir, progress) as speech:
            speech.features = None if features is None else Path(features)
            return self.animate_speech(
                speech, style, semantic_strength, progress, articulation, seed, track, transcript, language
            )

    def animate_speech(
        self,
        speech: Speech,
        style: Style = 0,
        semantic_strength: float = 1.0,
        progress: StageProgress | None = None,
        articulation: float = 0.0,
        seed: int = 0,
        track: Follow | None = None,
        transcript: str | os.PathLike[str] | Transcript | None = None,
        language: str = "",
    ) -> Motion:
        """Animate a recording that is open already; as `animate`."""
        follow = self._followed(track, transcript, language)
        return self._animate(speech, style, semantic_strength, progress or _silent, articulation, seed, follow)

    def move_face(self, template_V3: np.ndarray) -> None:
        """Move this neutral face (V, 3), in the unit of the basis, from now on.

        It changes the motion of FaceDiffuser alone, which otherwise moves the faces of its training subjects: all other
        hosts predict offsets.
        """
        if not self.folder.config.host.IN_NUMPY:
            cast("TorchEngine", self._decoder).move_face(template_V3, self.folder)

    def semantic(self, waveform: np.ndarray, sample_rate: float) -> np.ndarray:
        """The sentence vector F_s (E,) of one utterance, as trained.

        Args:
            waveform: (N,) or (C, N), float or integer. It is read whole, so memory grows with its length.
            sample_rate: In Hz, any.

        Raises:
            UserError: The audio cannot be used, or the model has no Wav2Sem.
        """
        if self._wav2sem_config is None:
            raise UserError("this model has no Wav2Sem, so it gives no sentence vectors")
        with Speech.from_array(waveform, sample_rate) as speech:
            return self._listener.sentence_vector(speech, 0, speech.n_samples)

    def forget_recordings(self) -> None:
        """Drop all notes since the model was loaded: in a process that hears thousands they would only grow."""
        del self.notes[self._n_notes_of_model :]
        self._notes_of_speech.clear()

    def _steer(self) -> Steering:
        """What lets the mouth follow a track; UserError if this model cannot."""
        if self._steering is None:
            self._steering = Steering(self.folder, self._decoder)
        return self._steering

    def _followed(
        self, track: Follow | None, transcript: str | os.PathLike[str] | Transcript | None, language: str
    ) -> Track | Callable[[Phones], Track] | _Read | _Said | None:
        """The track or the transcript, which is read before the recording is heard."""
        if track is not None:
            self._steer()
        if isinstance(track, str | os.PathLike):
            return _Read(load_followed(Path(track)), Path(track).name)
        if track is not None or transcript is None:
            return track
        if not self.folder.config.phones:
            raise UserError("This model does not tell which phones it hears, so it cannot use a transcript.")
        return _Said(read_transcript(transcript), known_language(language) if language else "")

    def _animate(
        self,
        speech: Speech,
        style: Style,
        semantic_strength: float,
        progress: StageProgress,
        articulation: float,
        seed: int,
        track: Track | Callable[[Phones], Track] | _Read | _Said | None,
    ) -> Motion:
        if not np.isfinite(semantic_strength):
            raise UserError(
                "semantic strength {semantic_strength}: a finite number is needed (0 off, 1 as trained)",
                semantic_strength=semantic_strength,
            )
        config = self.folder.config
        self.notes += self._notes_of_loading  # with the first recording
        self._notes_of_loading = []
        style_N = articulated(style_weights(style, config.styles), articulation, config)
        heard = self._listener.listen(speech, semantic_strength, progress)
        followed = None
        if isinstance(track, _Said):
            assert heard.phones is not None  # `_followed` asked
            followed, notes = track_of(heard.phones, track.transcript, track.language)
            speech.notes += notes
            if track.transcript.marks and not config.steerable:
                speech.notes.append(
                    Text("This model does not follow a track; the transcript's directions change nothing.")
                )
            track = followed if config.steerable else None
        if track is None:
            weights_TK = heard.decoded(
                lambda memory_RM, done: self._decoder.decode(memory_RM, style_N, seed, done),
                lambda done: progress("motion", done),
            )
        else:
            assert heard.phones is not None  # a steerable model tells them
            if isinstance(track, _Read):
                followed, begins_s = track.track, speech.begins_s
                if begins_s is not None:
                    followed = followed.between(begins_s, begins_s + speech.duration_s)
                speech.notes += doubts(followed, heard_track(heard.phones), speech.duration_s, track.name)
            else:
                followed = track if isinstance(track, Track) else track(heard.phones)
            weights_TK = self._steer().weights(heard.memory_RM, heard.phones, followed, style_N)
        progress("motion", 1.0)
        self._notes_of_speech += speech.notes
        self.notes += speech.notes
        motion = self._motion(weights_TK, heard.phones, speech, style_N, semantic_strength)
        motion = replace(motion, memory_RM=heard.memory_RM if config.steerable else None, track=followed)
        if config.host.SAMPLES:
            motion = replace(motion, info={**motion.info, "seed": str(seed)})
        return motion

    def _motion(
        self, weights_TK: np.ndarray, phones: Phones | None, speech: Speech, style_N: np.ndarray, strength: float
    ) -> Motion:
        config = self.folder.config
        info = {
            "model": config.name,
            "weights_sha256": self.folder.weights_sha256,
            "audio": speech.name,
            "audio_sha256": speech.sha256,
            "audio_s": f"{speech.duration_s:.6f}",
            "engine": self.engine.name,
            "device": self.engine.device,
            "style": " + ".join(f"{w:g} {n}" for w, n in zip(style_N, config.styles, strict=True) if w),
            "semantic_strength": f"{strength:g}",
            "notes": "; ".join(self._notes_for(speech)),
        }
        return Motion(
            weights_TK=weights_TK,
            channels=config.channels,
            fps=float(config.host.grid.fps),
            basis_KV3=self._basis_KV3,
            info=info,
            phones=phones,
        )

    def _notes_for(self, speech: Speech) -> list[Text]:
        """The notes without those of other recordings."""
        others = {id(note) for note in self._notes_of_speech} - {id(note) for note in speech.notes}
        return [note for note in self.notes if id(note) not in others]


class SentenceEncoder(SpeechAnimator):
    """A Wav2Sem without a face: `semantic` works, animating raises UserError."""

    def __init__(self, folder: Wav2SemFolder, engine: str, device: str) -> None:
        if engine != "torch":
            raise UserError("{path}: a Wav2Sem alone has no ONNX file; choose the torch engine", path=folder.path)
        from .engine_torch import TorchEngine

        self.engine = TorchEngine(folder, device)
        self._listener = Listener(self.engine)
        self.notes = self._listener.notes
        self._path = folder.path
        self._wav2sem_config = folder.config

    def animate(self, *arguments: object, **options: object) -> NoReturn:
        """Raises UserError: there is no face."""
        raise UserError("{path}: {no_face}", path=self._path, no_face=NO_FACE)

    animate_file = animate


def style_weights(style: Style, names: Sequence[str]) -> np.ndarray:
    """Weights (N,) of the styles: one-hot for an index or a name; given weights stay as they are.

    Hosts whose styles are speakers and emotions take a sum of names, such as "M003 + angry".

    Raises:
        UserError: There is no such style.
    """
    if isinstance(style, str):
        if style not in names and _RENAMED.get(style) in names:
            style = _RENAMED[style]
        if style in names:
            return np.eye(len(names), dtype=np.float32)[list(names).index(style)]
        if "+" in style:
            return np.sum([style_weights(part.strip(), names) for part in style.split("+")], axis=0, dtype=np.float32)
        if not style.isdecimal():
            raise UserError("style {style!r}: this model has {names}", style=style, names=listed(names, MAX_LISTED))
        style = int(style)
    if isinstance(style, (int, np.integer)):
        if not 0 <= style < len(names):
            raise UserError(
                "style {style}: this model has styles 0 to {last} ({names})",
                style=style,
                last=len(names) - 1,
                names=listed(names, MAX_LISTED),
            )
        return np.eye(len(names), dtype=np.float32)[style]
    weights_N = np.asarray(style, np.float32)
    if weights_N.shape != (len(names),) or not np.isfinite(weights_N).all():
        raise UserError(
            "style weights of shape {shape}: {n_styles} finite numbers are needed",
            shape=weights_N.shape,
            n_styles=len(names),
        )
    return weights_N


def articulated(style_N: np.ndarray, articulation: float, config: ModelConfig) -> np.ndarray:
    """Mix a style with the model's mumbled style (below 0) or its clear one (above 0); weights (N,).

    Raises:
        UserError: The value is not in -1..1, or it is not 0 and the model has no such styles.
    """
    if not -1 <= articulation <= 1:
        raise UserError(
            "articulation {articulation}: a number from -1 (mumbled) to 1 (clear) is needed", articulation=articulation
        )
    if articulation == 0:
        return style_N
    if config.articulation is None:
        raise UserError("this model has no mumbled and clear styles; set articulation to 0")
    mumbled, clear = config.articulation
    share = np.float32(abs(articulation))
    return (1 - share) * style_N + share * style_weights(clear if articulation > 0 else mumbled, config.styles)


def choose_engine(has_onnx: bool, engine: str, device: str) -> str:
    if engine not in ENGINES:
        raise UserError("engine {engine!r}: known are {engines}", engine=engine, engines=", ".join(ENGINES))
    needs = {"onnx": ("onnxruntime",), "torch": ("torch", "transformers")}
    missing = {name: [m for m in modules if not _installed(m)] for name, modules in needs.items()}
    if engine == "auto":
        wants_torch = device not in ("auto", "cpu") or not has_onnx
        engine = "torch" if wants_torch or missing["onnx"] else "onnx"
        if missing["onnx"] and missing["torch"]:
            raise UserError("neither ONNX Runtime nor torch is installed for this Python; install `onnxruntime`")
    if missing[engine]:
        raise UserError(
            "the {engine} engine needs {modules}: choose a Python that has it in the add-on's preferences, or pip "
            "install it",
            engine=engine,
            modules=" and ".join(missing[engine]),
        )
    if engine == "onnx" and device not in ("auto", "cpu"):
        raise UserError(
            "device {device!r}: the onnx engine runs on the CPU; choose the torch engine for a GPU",
            device=device,
        )
    return engine


def loaded_engine(has_onnx: bool, engine: str, device: str, notes: list[Text]) -> str:
    """As `choose_engine`, and load its library; with "auto" torch replaces an ONNX Runtime that does not load.

    Raises:
        UserError: As `choose_engine`.
        Exception: Whatever a library raises that does not load; `errors.user_text` has the sentence for it.
    """
    name = choose_engine(has_onnx, engine, device)
    try:
        _load_library(name)
    except Exception as error:
        fault = fault_of(error)
        others = engine == "auto" and name == "onnx" and _installed("torch") and _installed("transformers")
        if fault is None or is_out_of_memory(error) or not others:
            raise
        try:
            _load_library("torch")
        except Exception:  # the first library is the one that should be mended
            raise error from None
        notes.append(Text("{trouble} Until then, torch is used.", trouble=library_text(fault)))
        return "torch"
    return name


def _load_library(engine: str) -> None:
    importlib.import_module(".engine_onnx" if engine == "onnx" else ".engine_torch", __package__)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # blocked or half removed
        return False


def _silent(stage: str, fraction: float) -> None:
    pass
