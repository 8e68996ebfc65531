# SPDX-License-Identifier: GPL-3.0-or-later
"""One encoder for phones, sentence vectors and the face, with a stand-in engine that shows what it was given.

The stand-in's features are the time of each frame within its window, plus the number of the window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wav2sem_blender.pipeline.audio import Speech, split_utterances
from wav2sem_blender.pipeline.frame_timing import FrameGrid, encoder_frames
from wav2sem_blender.pipeline.listening import SURROUNDINGS_S, UTTERANCE_FADE_S, SharedEncoder, utterance_windows

RATE_HZ = 16_000
GRID = FrameGrid(fps=30)
D, E, M = 3, 2, 4
PHONES = ("SIL", "P")
RNG = np.random.default_rng(0)
FUSION = {
    "audio_feature_map.weight": RNG.normal(size=(M, D)).astype(np.float32),
    "audio_feature_map.bias": RNG.normal(size=M).astype(np.float32),
    "semantic_feature_map.weight": RNG.normal(size=(D, E)).astype(np.float32),
    "semantic_feature_map.bias": RNG.normal(size=D).astype(np.float32),
}


@dataclass
class StandIn:
    device: str = "cpu"
    limit_s: float = 1e9
    heard: list[int] = field(default_factory=list)
    told: list[int] = field(default_factory=list)

    def hear(self, spectrogram_FM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(spectrogram_FM) > 100 * self.limit_s and self.device != "cpu":
            raise MemoryError
        frames = -(-len(spectrogram_FM) // 2)
        self.heard.append(frames)
        features = np.stack([np.arange(frames), np.full(frames, len(self.heard)), np.ones(frames)], 1)
        phones = np.stack([np.full(frames, 0.25), np.full(frames, 0.75)], 1)
        return features.astype(np.float32), phones.astype(np.float32)

    def semantic(self, features_LD: np.ndarray) -> np.ndarray:
        self.told.append(len(features_LD))
        return np.array([1.0, 0.0], np.float32)

    def move_to_cpu(self) -> None:
        self.device = "cpu"


def listener(engine: StandIn, wav2sem: bool = True) -> SharedEncoder:
    config = SimpleNamespace(
        host=SimpleNamespace(grid=GRID), wav2sem=SimpleNamespace(target_dim=E) if wav2sem else None, phones=PHONES
    )
    folder: Any = SimpleNamespace(config=config, tensors=lambda prefix: FUSION)
    return SharedEncoder(folder, engine)  # type: ignore[arg-type]


def recording(seconds: float) -> Speech:
    """Syllables with a pause every five seconds."""
    n = int(seconds * RATE_HZ)
    quiet = (np.arange(n) / RATE_HZ % 5) > 4.5
    samples = np.random.default_rng(1).standard_normal(n) * np.where(quiet, 1e-4, 0.1)
    return Speech.from_array(samples.astype(np.float32), RATE_HZ)


def fused(features_LD: np.ndarray, strength: float) -> np.ndarray:
    inner = strength * FUSION["semantic_feature_map.weight"][:, 0] + FUSION["semantic_feature_map.bias"]
    return (features_LD + inner) @ FUSION["audio_feature_map.weight"].T + FUSION["audio_feature_map.bias"]


@pytest.mark.parametrize("strength", (0.0, 1.0, 0.5))
def test_a_short_recording_is_one_window(strength: float) -> None:
    engine = StandIn()
    with recording(6) as speech:
        heard = listener(engine).listen(speech, strength, lambda stage, done: None)
        positions = GRID.positions(speech.n_samples)
    frames = encoder_frames(6 * RATE_HZ)
    assert engine.heard == [frames] and engine.told == ([frames] if strength else [])
    features = np.stack([positions, np.ones(len(positions)), np.ones(len(positions))], 1)
    np.testing.assert_allclose(heard.memory_RM, fused(features, strength), rtol=1e-4, atol=1e-3)
    assert heard.phones is not None and heard.phones.names == PHONES
    np.testing.assert_array_equal(heard.phones.posteriors_LP, np.tile(np.float16([0.25, 0.75]), (frames, 1)))


def test_a_long_recording_has_a_window_for_each_utterance() -> None:
    engine = StandIn()
    with recording(53) as speech:
        positions = GRID.positions(speech.n_samples)
        windows = utterance_windows(speech, positions)
        utterances = split_utterances(speech, max_s=18.0)
        heard = listener(engine).listen(speech, 1.0, lambda stage, done: None)
    assert len(windows) == len(utterances) > 2
    for window, (begin, end) in zip(windows, utterances, strict=True):
        assert window.start % 320 == 0 and window.stop - window.start <= 20 * RATE_HZ + 320
        assert abs(window.start - max(0, begin - SURROUNDINGS_S * RATE_HZ)) < 320
        assert window.stop == min(speech.n_samples, end + SURROUNDINGS_S * RATE_HZ)
    # Each utterance's own frames, once: no gap, no overlap.
    assert [w.first_frame for w in windows[1:]] == [w.last_frame for w in windows[:-1]]
    assert sum(engine.told) == encoder_frames(speech.n_samples)
    assert heard.phones is not None and (heard.phones.posteriors_LP[:, 1] == 0.75).all()
    # Neighbours share the frames of the fade around the pause, and all frames are read.
    shared = [before.last - after.first for before, after in zip(windows, windows[1:], strict=False)]
    assert all(abs(n - UTTERANCE_FADE_S * 30) <= 1 for n in shared)
    assert len(heard.memory_RM) == len(positions) and np.isfinite(heard.memory_RM).all()


def test_without_a_wav2sem_features_are_read_alone() -> None:
    engine = StandIn()
    with recording(3) as speech:
        heard = listener(engine, wav2sem=False).listen(speech, 1.0, lambda stage, done: None)
    assert engine.told == []
    first = np.array([0.0, 1.0, 1.0]) @ FUSION["audio_feature_map.weight"].T + FUSION["audio_feature_map.bias"]
    np.testing.assert_allclose(heard.memory_RM[0], first, rtol=1e-5)


def test_a_small_gpu_hears_shorter_windows_then_the_cpu_goes_on() -> None:
    engine = StandIn(device="gpu", limit_s=11)
    with recording(53) as speech:
        ours = listener(engine)
        ours.listen(speech, 1.0, lambda stage, done: None)
        assert ours.window_s == 10 and ours.notes == ["gpu ran out of memory: windows of 10 s instead"]
    engine = StandIn(device="gpu", limit_s=1)
    with recording(53) as speech:
        ours = listener(engine)
        ours.listen(speech, 1.0, lambda stage, done: None)
    assert engine.device == "cpu" and ours.notes[-1] == "gpu ran out of memory: the CPU did the rest"
