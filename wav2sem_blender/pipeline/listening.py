# SPDX-License-Identifier: GPL-3.0-or-later
"""From a recording to the decoder's memory, window by window, so that memory does not grow with the encoders' work.

`SeparateEncoders` is the published way: the phone-level encoder and Wav2Sem each hear the recording. `SharedEncoder` is
the bundled model's: one encoder hears it, and phones, sentence vectors and the face read its features.
`FeatureListener` is for models that are given their features.

Shapes: S samples at 16 kHz, L encoder frames (50 Hz), R memory frames (see `FrameGrid`), D features, E sentence space,
M memory width, P phones, U utterances.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..assets import DEFAULT_MODEL
from ..errors import Text
from . import given_features, log_mel
from .audio import SAMPLE_RATE_HZ, VARIANCE_EPSILON, Speech, split_utterances
from .checkpoint import EncoderConfig, ModelFolder
from .frame_timing import HOP_SAMPLES, encoder_frames
from .phones import Phones
from .sound_file import StageProgress
from .windows import WINDOW_S, Window, plan, plan_separate, run_windows

if TYPE_CHECKING:
    from .engine_onnx import OnnxEngine
    from .engine_torch import TorchEngine

MIN_WINDOW_S = 5.0
UTTERANCE_FADE_S = 0.4
SURROUNDINGS_S = 1.0  # what is heard before and after an utterance
FRAMES_AT_ONCE = 4096  # of given features


class Heard(NamedTuple):
    """What the decoder reads (R, M), and what was said, if the model tells.

    With `windows`, these are decoded one by one: the memory has the frames of each, one after the other.
    """

    memory_RM: np.ndarray
    phones: Phones | None = None
    windows: tuple[Window, ...] = ()

    def decoded(
        self, decode: Callable[[np.ndarray, Callable[[float], None]], np.ndarray], progress: Callable[[float], None]
    ) -> np.ndarray:
        """What `decode` makes of the memory (T, K), given a function that takes its progress."""
        if len(self.windows) < 2:
            return decode(self.memory_RM, progress)
        ends = np.cumsum([window.last - window.first for window in self.windows])
        parts = iter(np.split(self.memory_RM, ends[:-1]))
        return run_windows(
            list(self.windows), self.windows[-1].last, lambda _window: decode(next(parts), lambda _done: None), progress
        )


class Listener:
    """What both ways share: sentence vectors, and an answer to a GPU that runs out of memory.

    Attributes:
        notes: What was done differently than asked.
        window_s: Longest window.
    """

    def __init__(self, engine: OnnxEngine | TorchEngine) -> None:
        self.notes: list[Text] = []
        self.window_s = WINDOW_S
        self._engine = engine

    def listen(self, speech: Speech, strength: float, progress: StageProgress) -> Heard:
        """The memory of a whole recording, and its phones if the model tells them; `strength` scales F_s."""
        raise NotImplementedError

    def sentence_vector(self, speech: Speech, start: int, stop: int) -> np.ndarray:
        """F_s (E,) of samples [start, stop). It takes a whole utterance, so if the GPU runs out of memory, the CPU does
        the rest."""
        samples_S = speech.read(start, stop)
        try:
            return self._vector(samples_S)
        except MemoryError as error:
            self._move_to_cpu(error)
        return self._vector(samples_S)

    def _vector(self, samples_S: np.ndarray) -> np.ndarray:
        return self._engine.semantic(samples_S)

    def _survive(self, work: Callable[[float], np.ndarray]) -> np.ndarray:
        """Do `work(window_s)`. If the GPU runs out of memory, retry with smaller windows, then on the CPU."""
        while True:
            try:
                return work(self.window_s)
            except MemoryError as error:
                device = self._engine.device
                if device == "cpu" or self.window_s / 2 < MIN_WINDOW_S:
                    self._move_to_cpu(error)
                else:
                    self.window_s /= 2
                    template = "{device} ran out of memory: windows of {window_s:g} s instead"
                    self.notes.append(Text(template, device=device, window_s=self.window_s))

    def _move_to_cpu(self, error: MemoryError) -> None:
        """Move from a GPU that is too small, and note it; raise `error` if this is the CPU already."""
        if self._engine.device == "cpu":
            raise error
        self.notes.append(Text("{device} ran out of memory: the CPU did the rest", device=self._engine.device))
        self._engine.move_to_cpu()  # type: ignore[union-attr]
        self.window_s = WINDOW_S


class SeparateEncoders(Listener):
    """The phone-level encoder and, where the model has one, a Wav2Sem that hears the recording itself."""

    def __init__(self, folder: ModelFolder, engine: OnnxEngine | TorchEngine) -> None:
        super().__init__(engine)
        self._grid, self._wav2sem = folder.config.host.grid, folder.config.wav2sem
        self._normalised = folder.config.encoder.normalised
        self.window_s = self._grid.window_s

    def listen(self, speech: Speech, strength: float, progress: StageProgress) -> Heard:
        """As `Listener`, without phones."""
        positions_R = self._grid.positions(speech.n_samples)
        semantic = self._sentence_vectors(speech, positions_R, strength, progress)

        def encode(window: Window) -> np.ndarray:
            semantic_rE = semantic(window.first, window.last) if semantic else None
            samples_S = speech.read(window.start, window.stop, self._normalised)
            return self._engine.memory(samples_S, window.local_positions(positions_R), semantic_rE)

        def all_windows(window_s: float) -> np.ndarray:
            windows = plan(speech.n_samples, positions_R, window_s, self._grid.overlap_s)
            return run_windows(windows, len(positions_R), encode, lambda done: progress("features", done))

        def one_by_one(window_s: float) -> np.ndarray:
            memories = []
            for window in plan_separate(speech.n_samples, self._grid, window_s):
                semantic_rE = semantic(window.first, window.last) if semantic else None
                samples_S = speech.read(window.start, window.stop, self._normalised)
                if self._normalised:
                    samples_S = (samples_S - samples_S.mean()) / np.sqrt(samples_S.var() + VARIANCE_EPSILON)
                local_r = self._grid.positions(len(samples_S))
                memories.append(self._engine.memory(samples_S, local_r, semantic_rE))
                progress("features", window.stop / speech.n_samples)
            return np.concatenate(memories)

        memory_RM = self._survive(one_by_one if self._grid.separate else all_windows)
        progress("features", 1.0)
        if not self._grid.separate:
            return Heard(memory_RM)
        return Heard(memory_RM, windows=tuple(plan_separate(speech.n_samples, self._grid, self.window_s)))

    def _sentence_vectors(
        self, speech: Speech, positions_R: np.ndarray, strength: float, progress: StageProgress
    ) -> Callable[[int, int], np.ndarray] | None:
        """A reader of memory frames [first, last) that gives each utterance's F_s, faded over the pauses between."""
        if self._wav2sem is None:
            return None
        utterances = split_utterances(speech, max_s=WINDOW_S)
        vectors_UE = np.zeros((len(utterances), self._wav2sem.target_dim), np.float32)
        if strength:
            for i, (start, stop) in enumerate(utterances):
                vectors_UE[i] = strength * self.sentence_vector(speech, start, stop)
                progress("semantics", (i + 1) / len(utterances))
        cuts_s = np.array([stop for _, stop in utterances[:-1]]) / SAMPLE_RATE_HZ
        knots_s = np.stack([cuts_s - UTTERANCE_FADE_S / 2, cuts_s + UTTERANCE_FADE_S / 2], 1).ravel()
        knot_values = np.repeat(np.arange(len(utterances)), 2)[1:-1]

        def read(first: int, last: int) -> np.ndarray:
            times_s = positions_R[first:last] * HOP_SAMPLES / SAMPLE_RATE_HZ
            if len(utterances) == 1:
                return np.repeat(vectors_UE, last - first, 0)
            at = np.interp(times_s, knots_s, knot_values)
            lower = np.minimum(at.astype(int), len(utterances) - 2)
            mix = (at - lower)[:, None].astype(np.float32)
            return vectors_UE[lower] * (1 - mix) + vectors_UE[lower + 1] * mix

        return read


class SharedEncoder(Listener):
    """One encoder hears each utterance, with what surrounds it; its features give the phones, F_s and the memory."""

    def __init__(self, folder: ModelFolder, engine: OnnxEngine | TorchEngine) -> None:
        super().__init__(engine)
        self._grid, self._wav2sem = folder.config.host.grid, folder.config.wav2sem
        self._phones = folder.config.phones
        fusion = folder.tensors("fusion.")
        self._outer = fusion["audio_feature_map.weight"].T, fusion["audio_feature_map.bias"]
        if self._wav2sem is not None:
            self._inner = fusion["semantic_feature_map.weight"].T, fusion["semantic_feature_map.bias"]

    def listen(self, speech: Speech, strength: float, progress: StageProgress) -> Heard:
        """As `Listener`."""
        positions_R = self._grid.positions(speech.n_samples)
        level_F = _levels(speech)
        posteriors_LP = np.zeros((encoder_frames(speech.n_samples), len(self._phones)), np.float16)

        def encode(window: Window) -> np.ndarray:
            hop = log_mel.HOP_SAMPLES
            samples_S = speech.read(window.start, window.stop)
            spectrogram_FM = log_mel.log_mel(samples_S, level_F[window.start // hop :])
            features_LD, heard_LP = self._engine.hear(spectrogram_FM)
            before, own = window.own_frames(len(features_LD))
            posteriors_LP[window.start // HOP_SAMPLES + before :][: own - before] = heard_LP[before:own]
            inner_D = self._inner_part(features_LD[before:own], strength)
            return self._read(features_LD, window.local_positions(positions_R), inner_D)

        def all_windows(window_s: float) -> np.ndarray:
            windows = utterance_windows(speech, positions_R, window_s)
            return run_windows(windows, len(positions_R), encode, lambda done: progress("features", done))

        memory_RM = self._survive(all_windows)
        progress("features", 1.0)
        phones = Phones(names=self._phones, posteriors_LP=posteriors_LP) if self._phones else None
        return Heard(memory_RM, phones)

    def _vector(self, samples_S: np.ndarray) -> np.ndarray:
        features_LD, _ = self._engine.hear(log_mel.hear(samples_S))
        return self._engine.semantic(features_LD)

    def _inner_part(self, features_LD: np.ndarray, strength: float) -> np.ndarray | float:
        """FC(F_s) (D,) of an utterance."""
        if self._wav2sem is None:
            return 0.0
        weight, bias = self._inner
        if not strength or not len(features_LD):
            return bias
        return strength * self._engine.semantic(features_LD) @ weight + bias

    def _read(self, features_LD: np.ndarray, positions_r: np.ndarray, inner_D: np.ndarray | float) -> np.ndarray:
        """FC(FC(F_s) + F_p) at encoder frames `positions_r`: (r, M). The products are linear, so they come first."""
        weight, bias = self._outer
        memory_LM = (features_LD + inner_D) @ weight + bias
        lower_r = positions_r.astype(int)
        upper_r = np.minimum(lower_r + 1, len(memory_LM) - 1)
        share_r = (positions_r - lower_r)[:, None].astype(np.float32)
        return memory_LM[lower_r] * (1 - share_r) + memory_LM[upper_r] * share_r


class FeatureSource:
    """Features from a file that the user made, or what the bundled model hears (see `given_features.py`)."""

    SUFFIXES = given_features.SUFFIXES

    def __init__(self, encoder: EncoderConfig, device: str, notes: list[Text]) -> None:
        """`device` is the bundled model's; `notes` gets a sentence for each recording."""
        self._config, self._notes = encoder.config, notes
        self._ear = bundled_ear(device, notes) if given_features.is_stand_in(encoder) else None

    @property
    def from_files(self) -> bool:
        """Whether each recording has a file, as without the stand-in."""
        return self._ear is None

    def read(self, speech: Speech, progress: StageProgress) -> tuple[np.ndarray, Phones | None]:
        """Features (L, D), and the phones of the stand-in; UserError or MissingFileError if the file is not right."""
        of = self._config["of"]
        if self._ear is None:
            file, features_LD = given_features.read_for(speech, self._config, self.SUFFIXES)
            self._notes.append(Text("{features} were read from {file}.", features=of, file=file.name))
            return features_LD, None
        phones = self._ear.listen(speech, 0.0, progress).phones
        assert phones is not None
        template = "The bundled model's phones stand in for {features}: the motion is not the published model's."
        self._notes.append(Text(template, features=of))
        return phones.posteriors_LP.astype(np.float32), phones


class TextSource(FeatureSource):
    """Features of what is said, for a host that reads them beside the sound."""

    SUFFIXES = given_features.TEXT_SUFFIXES

    def __init__(self, width: int, notes: list[Text]) -> None:
        super().__init__(given_features.encoder("the text's token features", width, stand_in=False), "", notes)

    def at(self, features_LE: np.ndarray, positions_R: np.ndarray) -> np.ndarray:
        """The features (R, E) of the encoder frames nearest to the memory frames: tokens do not blend."""
        return features_LE[np.rint(positions_R).astype(int).clip(0, len(features_LE) - 1)]


class TextListener(SeparateEncoders):
    """For a host that reads what is said; its features take the place of F_s."""

    def __init__(self, folder: ModelFolder, engine: OnnxEngine | TorchEngine) -> None:
        super().__init__(folder, engine)
        self._width = folder.config.host.text_width
        self._source = TextSource(self._width, self.notes)

    def _sentence_vectors(
        self, speech: Speech, positions_R: np.ndarray, strength: float, progress: StageProgress
    ) -> Callable[[int, int], np.ndarray]:
        """A reader of memory frames [first, last); at strength 0 no file is needed."""
        if not strength:
            return lambda first, last: np.zeros((last - first, self._width), np.float32)
        said_RE = strength * self._source.at(self._source.read(speech, progress)[0], positions_R)
        return lambda first, last: said_RE[first:last]


class FeatureListener(SeparateEncoders):
    """For a model that is given its features, as `FeatureSource` has them."""

    def __init__(self, folder: ModelFolder, engine: OnnxEngine | TorchEngine) -> None:
        super().__init__(folder, engine)
        self._source = FeatureSource(folder.config.encoder, engine.device, self.notes)

    def listen(self, speech: Speech, strength: float, progress: StageProgress) -> Heard:
        """As `Listener`; with phones by the stand-in."""
        positions_R = self._grid.positions(speech.n_samples)
        semantic = self._sentence_vectors(speech, positions_R, strength, progress)
        features_LD, phones = self._source.read(speech, progress)

        def read(first: int) -> np.ndarray:
            last = min(first + FRAMES_AT_ONCE, len(positions_R))
            semantic_rE = semantic(first, last) if semantic else None
            return self._engine.memory(features_LD, positions_R[first:last], semantic_rE)

        firsts = range(0, len(positions_R), FRAMES_AT_ONCE)
        memory_RM = self._survive(lambda _window_s: np.concatenate([read(first) for first in firsts]))
        progress("features", 1.0)
        return Heard(memory_RM, phones)


def bundled_ear(device: str, notes: list[Text]) -> SharedEncoder:
    """The bundled model's ear on a torch device; what it does differently goes to `notes`."""
    from .engine_torch import TorchEngine

    folder = ModelFolder.open(DEFAULT_MODEL)
    ear = SharedEncoder(folder, TorchEngine(folder, device))
    ear.notes = notes
    return ear


def listener_for(folder: ModelFolder, engine: OnnxEngine | TorchEngine) -> Listener:
    """How a model hears."""
    if folder.config.encoder.kind == given_features.KIND:
        return FeatureListener(folder, engine)
    if folder.config.host.text_width:
        return TextListener(folder, engine)
    return SharedEncoder(folder, engine) if folder.config.one_encoder else SeparateEncoders(folder, engine)


def utterance_windows(speech: Speech, positions_R: np.ndarray, window_s: float = WINDOW_S) -> list[Window]:
    """One window for each utterance: the utterance and what surrounds it, at most `window_s` long.

    The memory frames of neighbours overlap by `UTTERANCE_FADE_S` around the pause between them.
    """
    around = int(min(SURROUNDINGS_S, window_s / 6) * SAMPLE_RATE_HZ)
    size = int(window_s * SAMPLE_RATE_HZ)
    whole = speech.n_samples <= size
    longest_s = window_s if whole else (size - 2 * around) / SAMPLE_RATE_HZ
    utterances = split_utterances(speech, max_s=longest_s, min_s=min(2.0, longest_s / 2))
    fade = UTTERANCE_FADE_S / 2 * SAMPLE_RATE_HZ
    windows = []
    for begin, end in utterances:
        # An utterance's own frames begin with the first one whose hop begins inside.
        first_frame, last_frame = -(-begin // HOP_SAMPLES), -(-end // HOP_SAMPLES)
        start = max(0, begin - around) // HOP_SAMPLES * HOP_SAMPLES
        stop = min(speech.n_samples, end + around)
        first = np.searchsorted(positions_R, (begin - fade) / HOP_SAMPLES) if begin else 0
        last = np.searchsorted(positions_R, (end + fade) / HOP_SAMPLES) if end < speech.n_samples else len(positions_R)
        windows.append(Window(start, stop, int(first), int(last), first_frame, last_frame))
    return windows


def _levels(speech: Speech) -> np.ndarray:
    """The level around every spectrogram frame of a recording."""
    hops_per_read = 1000
    step = hops_per_read * log_mel.HOP_SAMPLES
    parts = []
    for start in range(0, speech.n_samples, step):
        # With one hop before, so that the difference of samples goes on across the cut.
        before = log_mel.HOP_SAMPLES if start else 0
        samples_S = speech.read(start - before, min(start + step, speech.n_samples))
        parts.append(log_mel.powers(samples_S)[1 if start else 0 :])
    return log_mel.padded_levels(log_mel.levels(np.concatenate(parts)), speech.n_samples)
