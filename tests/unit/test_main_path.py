# SPDX-License-Identifier: GPL-3.0-or-later
"""The main path of separate encoders with a stand-in engine and decoder: what each step is given, exactly, and what is
made of its answer. The path of a shared encoder is in test_listening.py.

The n-th sentence vector of the stand-in engine is the n-th unit vector. Its features are the F_s that it was given, and
the samples that it heard at the positions that it was told to read. So the weights that come out show which utterance
and which second each frame took.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from wav2sem_blender.assets import DEFAULT_MODEL
from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline import infer
from wav2sem_blender.pipeline.audio import Speech, split_utterances
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelFolder, Wav2SemConfig
from wav2sem_blender.pipeline.frame_timing import encoder_frames
from wav2sem_blender.pipeline.hosts.faceformer_channels import FaceFormerChannels
from wav2sem_blender.pipeline.infer import SpeechAnimator, articulated, choose_engine, style_weights
from wav2sem_blender.pipeline.windows import plan

RATE_HZ = 16_000
N_VECTORS = 24
ON_THE_CPU = "gpu ran out of memory: the CPU did the rest"
DEFAULT = ModelFolder.open(DEFAULT_MODEL)
FOLDER = dataclasses.replace(
    DEFAULT,
    config=dataclasses.replace(
        DEFAULT.config,
        encoder=EncoderConfig(kind="hubert", config={}),
        host=FaceFormerChannels(),
        wav2sem=Wav2SemConfig(config={}, target_dim=N_VECTORS),
        styles=("calm", "lively"),
        articulation=None,
        phones=(),
    ),
)
STYLES, GRID = FOLDER.config.styles, FOLDER.config.host.grid


class StandInEngine:
    """Remembers what it was given. A device in `too_small` runs out of memory above `limit_s`."""

    name, device = "stand-in", "gpu"

    def __init__(self, limit_s: float = 1e9, too_small: tuple[str, ...] = ("gpu",)) -> None:
        self.limit_s, self.too_small = limit_s, too_small
        self.utterances: list[np.ndarray] = []
        self.windows_s: list[float] = []

    def semantic(self, waveform_S: np.ndarray) -> np.ndarray:
        self._check(waveform_S)
        self.utterances.append(waveform_S)
        return np.eye(N_VECTORS, dtype=np.float32)[len(self.utterances) - 1]

    def memory(self, waveform_S: np.ndarray, positions_R: np.ndarray, semantic_RE: np.ndarray | None) -> np.ndarray:
        self._check(waveform_S)
        self.windows_s.append(len(waveform_S) / RATE_HZ)
        assert positions_R.min() >= 0 and positions_R.max() <= encoder_frames(len(waveform_S)) - 1
        memory_RM = np.zeros((len(positions_R), len(FOLDER.config.channels)), np.float32)
        memory_RM[:, -1] = np.interp(positions_R * 320, np.arange(len(waveform_S)), waveform_S)
        if semantic_RE is not None:
            memory_RM[:, :N_VECTORS] = semantic_RE
        return memory_RM

    def move_to_cpu(self) -> None:
        self.device = "cpu"

    def _check(self, waveform_S: np.ndarray) -> None:
        if self.device in self.too_small and len(waveform_S) > self.limit_s * RATE_HZ:
            raise MemoryError("out of memory")


class StandInDecoder:
    """The memory is the motion."""

    def decode(self, memory_RM, style_N, seed=0, progress=None):
        self.style_N = style_N
        progress(0.5)
        return memory_RM


def stand_in(engine: StandInEngine, wav2sem: bool = True) -> SpeechAnimator:
    without = dataclasses.replace(FOLDER, config=dataclasses.replace(FOLDER.config, wav2sem=None))
    animator = SpeechAnimator(FOLDER if wav2sem else without, engine)  # type: ignore[arg-type]
    animator._decoder = StandInDecoder()  # type: ignore[assignment]
    return animator


def heard_seconds(speech: Speech) -> tuple[np.ndarray, np.ndarray]:
    """When each animation frame is, in seconds, and the sample there."""
    at_sample_R = GRID.positions(speech.n_samples) * 320
    samples_S = speech.read(0, speech.n_samples)
    return at_sample_R / RATE_HZ, np.interp(at_sample_R, np.arange(len(samples_S)), samples_S)


@pytest.fixture(scope="module")
def minute() -> Iterator[Speech]:
    """61.3 s: a voice that pauses every five seconds and never repeats itself."""
    time_s = np.arange(int(61.3 * RATE_HZ)) / RATE_HZ
    voice = np.sin(2 * np.pi * (90 + time_s) * time_s) * (0.5 + 0.3 * np.sin(0.37 * time_s))
    with Speech.from_array(voice * np.where(time_s % 5 < 4.4, 1, 1e-4), RATE_HZ, name="minute.wav") as speech:
        yield speech


@pytest.fixture
def sentence() -> np.ndarray:
    return np.sin(np.arange(3 * RATE_HZ) ** 1.3 / 500).astype(np.float32)


class TestSentenceVectors:
    @pytest.mark.parametrize("strength", [0, 0.5, 1, 2, -1])
    def test_one_utterance_has_one_vector_times_the_strength(self, sentence, strength):
        engine = StandInEngine()
        weights_TK = stand_in(engine).animate(sentence, RATE_HZ, semantic_strength=strength).weights_TK
        assert len(engine.utterances) == (strength != 0), "what does not count need not be computed"
        np.testing.assert_array_equal(weights_TK[:, 0], np.float32(strength))
        assert not weights_TK[:, 1:N_VECTORS].any()

    def test_each_is_made_of_its_own_utterance_whole(self, minute):
        engine = StandInEngine()
        stand_in(engine).animate_speech(minute)
        utterances = split_utterances(minute)
        assert 4 <= len(utterances) == len(engine.utterances)
        for (start, stop), heard_S in zip(utterances, engine.utterances, strict=True):
            assert stop - start <= 20 * RATE_HZ
            np.testing.assert_array_equal(heard_S, minute.read(start, stop))

    @pytest.mark.parametrize("strength", [0.5, 1, 2])
    def test_a_frame_has_its_own_utterances_vector_and_a_cut_fades_over_0_4_s(self, minute, strength):
        weights_TK = stand_in(StandInEngine()).animate_speech(minute, semantic_strength=strength).weights_TK
        cuts_s = [stop / RATE_HZ for _, stop in split_utterances(minute)[:-1]]
        expected_TE = np.zeros((len(weights_TK), N_VECTORS))
        n_fading = 0
        for t, time_s in enumerate(heard_seconds(minute)[0]):
            expected_TE[t, sum(time_s >= cut_s for cut_s in cuts_s)] = 1
            for n, cut_s in enumerate(cuts_s):
                if abs(time_s - cut_s) < 0.2:
                    later = (time_s - cut_s + 0.2) / 0.4
                    expected_TE[t, [n, n + 1]] = 1 - later, later
                    n_fading += 1
        assert n_fading >= 11 * len(cuts_s)
        np.testing.assert_allclose(weights_TK[:, :N_VECTORS], strength * expected_TE, atol=1e-5)

    def test_a_model_without_a_wav2sem_gets_none(self, minute, sentence):
        engine = StandInEngine()
        animator = stand_in(engine, wav2sem=False)
        assert not animator.animate_speech(minute).weights_TK[:, :N_VECTORS].any() and not engine.utterances
        with pytest.raises(UserError, match="has no Wav2Sem"):
            animator.semantic(sentence, RATE_HZ)

    def test_one_alone_is_taken_whole_and_as_trained(self, minute):
        engine = StandInEngine()
        vector_E = stand_in(engine).semantic(minute.read(0, 30 * RATE_HZ, normalised=False), RATE_HZ)
        np.testing.assert_array_equal(vector_E, np.eye(N_VECTORS)[0])
        (heard_S,) = engine.utterances
        assert len(heard_S) == 30 * RATE_HZ and abs(heard_S.mean()) < 1e-5 and abs(heard_S.std() - 1) < 1e-5

    @pytest.mark.parametrize("strength", [float("nan"), float("inf")])
    def test_a_strength_that_is_no_number_is_refused(self, sentence, strength):
        with pytest.raises(UserError, match=f"semantic strength {strength}: a finite number is needed"):
            stand_in(StandInEngine()).animate(sentence, RATE_HZ, semantic_strength=strength)


class TestWindows:
    def test_every_frame_reads_its_own_second_in_every_window(self, minute):
        engine = StandInEngine()
        motion = stand_in(engine).animate_speech(minute)
        times_s, samples_T = heard_seconds(minute)
        assert motion.n_frames == len(times_s) == int((minute.n_samples - 80) // 320 / 50 * 30)
        assert len(engine.windows_s) == 4 and max(engine.windows_s) <= 20
        np.testing.assert_allclose(motion.weights_TK[:, -1], samples_T, atol=1e-4)

    def test_up_to_20_s_there_is_one_and_the_last_frame_is_the_last_encoder_frame(self, sentence):
        engine = StandInEngine()
        motion = stand_in(engine).animate(sentence, RATE_HZ)
        with Speech.from_array(sentence, RATE_HZ) as speech:
            times_s, samples_T = heard_seconds(speech)
        assert engine.windows_s == [3.0] and times_s[-1] * 50 == pytest.approx(148)
        np.testing.assert_allclose(motion.weights_TK[:, -1], samples_T, atol=1e-5)


class TestOutOfMemory:
    def test_windows_of_half_the_length_until_they_fit(self, minute):
        engine = StandInEngine(limit_s=5.0)
        animator = stand_in(engine)
        motion = animator.animate_speech(minute, semantic_strength=0)
        assert animator.notes == [f"gpu ran out of memory: windows of {s} s instead" for s in (10, 5)]
        assert motion.info["notes"] == "; ".join(animator.notes) and motion.info["device"] == "gpu"
        n_windows = len(plan(minute.n_samples, GRID.positions(minute.n_samples), 5.0))
        assert len(engine.windows_s) == n_windows and max(engine.windows_s) == 5.0
        np.testing.assert_allclose(motion.weights_TK[:, -1], heard_seconds(minute)[1], atol=1e-4)
        animator.animate_speech(minute, semantic_strength=0)  # remembers it
        assert len(animator.notes) == 2 and len(engine.windows_s) == 2 * n_windows

    def test_then_the_cpu_with_the_usual_windows(self, minute):
        engine = StandInEngine(limit_s=4.9)
        animator = stand_in(engine)
        motion = animator.animate_speech(minute, semantic_strength=0)
        assert animator.notes[2:] == [ON_THE_CPU] and len(animator.notes) == 3
        assert motion.info["device"] == "cpu" and len(engine.windows_s) == 4
        np.testing.assert_allclose(motion.weights_TK[:, -1], heard_seconds(minute)[1], atol=1e-4)

    def test_an_utterance_is_not_cut_and_goes_to_the_cpu_at_once(self, minute):
        engine = StandInEngine(limit_s=1.0)
        animator = stand_in(engine)
        weights_TK = animator.animate_speech(minute).weights_TK
        assert animator.notes == [ON_THE_CPU]
        assert len(engine.utterances) == len(split_utterances(minute)) and len(engine.windows_s) == 4
        np.testing.assert_array_equal(weights_TK[0, :2], [1, 0])

    def test_on_the_cpu_it_is_an_error(self, minute):
        for strength in (0, 1):
            engine = StandInEngine(limit_s=1.0, too_small=("cpu",))
            engine.move_to_cpu()
            animator = stand_in(engine)
            with pytest.raises(MemoryError):
                animator.animate_speech(minute, semantic_strength=strength)
            assert animator.notes == []

    def test_a_cpu_that_is_too_small_as_well(self, minute):
        animator = stand_in(StandInEngine(limit_s=1.0, too_small=("gpu", "cpu")))
        with pytest.raises(MemoryError):
            animator.animate_speech(minute)
        assert animator.notes == [ON_THE_CPU]


class TestWhatComesBack:
    def test_progress(self, minute):
        seen: list[tuple[str, float]] = []
        stand_in(StandInEngine()).animate_speech(minute, progress=lambda *stage: seen.append(stage))
        n_utterances = len(split_utterances(minute))
        semantics = [("semantics", (n + 1) / n_utterances) for n in range(n_utterances)]
        features = [("features", fraction) for fraction in (0.25, 0.5, 0.75, 1.0, 1.0)]
        assert seen == [*semantics, *features, ("motion", 0.5), ("motion", 1.0)]

    def test_where_it_came_from(self, minute):
        motion = stand_in(StandInEngine()).animate_speech(minute, style=[0.25, 0.75], semantic_strength=0.5)
        assert motion.info == {
            "model": FOLDER.config.name,
            "weights_sha256": FOLDER.weights_sha256,
            "audio": "minute.wav",
            "audio_sha256": minute.sha256,
            "audio_s": f"{minute.duration_s:.6f}",
            "engine": "stand-in",
            "device": "gpu",
            "style": f"0.25 {STYLES[0]} + 0.75 {STYLES[1]}",
            "semantic_strength": "0.5",
            "notes": "",
        }
        assert motion.channels == FOLDER.config.channels and motion.fps == 30.0
        np.testing.assert_array_equal(motion.basis_KV3, FOLDER.basis())

    def test_articulation_mixes_the_styles(self, minute, sentence):
        config = dataclasses.replace(FOLDER.config, styles=("clear", "mumbled"), articulation=("mumbled", "clear"))
        style_N = np.array([0.5, 0.5], np.float32)
        assert articulated(style_N, 0.0, config) is style_N
        np.testing.assert_allclose(articulated(style_N, 0.5, config), [0.75, 0.25])
        np.testing.assert_allclose(articulated(style_N, -0.5, config), [0.25, 0.75])
        np.testing.assert_array_equal(articulated(style_N, 1, config), [1, 0])
        np.testing.assert_array_equal(articulated(style_N, -1, config), [0, 1])
        for wrong in (1.01, -2, float("nan"), float("inf")):
            with pytest.raises(UserError, match="from -1"):
                articulated(style_N, wrong, config)
        with pytest.raises(UserError, match="no mumbled and clear"):
            articulated(style_N, 0.1, dataclasses.replace(config, articulation=None))
        animator = stand_in(StandInEngine())
        animator.folder = dataclasses.replace(FOLDER, config=config)
        motion = animator.animate_speech(minute, style="clear", articulation=-0.25)
        assert motion.info["style"] == "0.75 clear + 0.25 mumbled"
        animator.animate(sentence, RATE_HZ, "clear", articulation=-1)
        np.testing.assert_array_equal(animator._decoder.style_N, [0, 1])

    def test_an_array_a_file_and_an_opened_recording_are_one_motion(self, sentence, tmp_path):
        soundfile = pytest.importorskip("soundfile")
        soundfile.write(tmp_path / "x.wav", sentence, RATE_HZ, subtype="FLOAT")
        animators = [stand_in(StandInEngine()) for _ in range(3)]
        with Speech.from_array(sentence, RATE_HZ) as speech:
            opened = animators[0].animate_speech(speech, 1, 0.5)
        filed = animators[1].animate_file(tmp_path / "x.wav", 1, 0.5)
        array = animators[2].animate(sentence, RATE_HZ, 1, 0.5)
        for motion in (filed, array):
            np.testing.assert_array_equal(motion.weights_TK, opened.weights_TK)
            assert motion.info["style"] == f"1 {STYLES[1]}" and motion.info["semantic_strength"] == "0.5"
        for animator in animators:
            np.testing.assert_array_equal(animator._decoder.style_N, [0, 1])


class TestStyles:
    @pytest.mark.parametrize(
        ("style", "expected"),
        [
            (0, [1, 0, 0]),
            (2, [0, 0, 1]),
            (np.int64(1), [0, 1, 0]),
            ("ann", [1, 0, 0]),
            ("2", [0, 0, 1]),
            ("7", [0, 1, 0]),
            ([0.5, 0.2, 0.3], [0.5, 0.2, 0.3]),
            ((2, -1, 0), [2, -1, 0]),
        ],
    )
    def test_an_index_a_name_or_weights(self, style, expected):
        weights_N = style_weights(style, ("ann", "7", "eve"))  # a name of digits is a name
        assert weights_N.dtype == np.float32
        np.testing.assert_array_equal(weights_N, np.float32(expected))

    @pytest.mark.parametrize(
        ("style", "message"),
        [
            ("bob", "style 'bob': this model has ann, eve"),
            ("2", r"style 2: this model has styles 0 to 1 \(ann, eve\)"),
            (2, r"style 2: this model has styles 0 to 1 \(ann, eve\)"),
            (5, r"style 5: this model has styles 0 to 1 \(ann, eve\)"),
            (-1, "style -1"),
            ([1.0], r"style weights of shape \(1,\): 2 finite numbers"),
            ([[1.0, 0.0]], r"shape \(1, 2\)"),
            ([0.5, float("nan")], r"shape \(2,\): 2 finite"),
        ],
    )
    def test_another_is_refused(self, style, message):
        with pytest.raises(UserError, match=message):
            style_weights(style, ("ann", "eve"))


class TestEngines:
    def test_only_default_is_the_bundled_model(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        assert SpeechAnimator.load("default", engine="onnx").folder.path == DEFAULT_MODEL
        for name in ("another", "default2", "zoe"):
            with pytest.raises(MissingFileError, match=name):
                SpeechAnimator.load(name)

    @pytest.mark.parametrize(
        ("has_onnx", "engine", "device", "installed", "expected"),
        [
            (True, "auto", "auto", "onnx torch", "onnx"),
            (True, "auto", "cpu", "onnx torch", "onnx"),
            (True, "auto", "cuda", "onnx torch", "torch"),
            (True, "auto", "mps", "onnx torch", "torch"),
            (False, "auto", "auto", "onnx torch", "torch"),
            (False, "auto", "cpu", "torch", "torch"),
            (True, "auto", "auto", "torch", "torch"),
            (True, "auto", "auto", "onnx", "onnx"),
            (True, "torch", "auto", "torch", "torch"),
            (True, "onnx", "cpu", "onnx", "onnx"),
            (False, "onnx", "auto", "onnx", "onnx"),
            (True, "tensorflow", "auto", "onnx torch", "engine 'tensorflow': known are auto, onnx, torch"),
            (True, "onnx", "cuda", "onnx torch", "device 'cuda': the onnx engine runs on the CPU"),
            (True, "onnx", "auto", "torch", "the onnx engine needs onnxruntime: "),
            (True, "torch", "auto", "onnx", "the torch engine needs torch and transformers: "),
            (True, "auto", "cuda", "onnx", "the torch engine needs torch and transformers: "),
            (False, "auto", "auto", "onnx", "the torch engine needs torch and transformers: "),
            (True, "auto", "auto", "", "neither ONNX Runtime nor torch is installed"),
            (False, "auto", "cuda", "", "neither ONNX Runtime nor torch is installed"),
        ],
    )
    def test_the_choice(self, monkeypatch, has_onnx, engine, device, installed, expected):
        modules = {"onnx": ["onnxruntime"], "torch": ["torch", "transformers"]}
        there = [module for name in installed.split() for module in modules[name]]
        monkeypatch.setattr(infer, "_installed", lambda module: module in there)
        if expected in modules:
            assert choose_engine(has_onnx, engine, device) == expected
        else:
            with pytest.raises(UserError, match=expected):
                choose_engine(has_onnx, engine, device)

    def test_half_of_torch_is_none(self, monkeypatch):
        monkeypatch.setattr(infer, "_installed", lambda module: module == "torch")
        with pytest.raises(UserError, match="the torch engine needs transformers: "):
            choose_engine(True, "torch", "auto")

    def test_installed(self, monkeypatch):
        assert infer._installed("numpy") and not infer._installed("no_such_module")
        assert not infer._installed("no_such_package.part")
        monkeypatch.setitem(sys.modules, "blocked", None)  # find_spec raises ValueError
        assert not infer._installed("blocked")
