# SPDX-License-Identifier: GPL-3.0-or-later
"""The main path with the bundled model: both engines, long audio, styles, semantics, and damaged models."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from wav2sem_blender.assets import ASSETS, DEFAULT_MODEL
from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline import SpeechAnimator, listening, windows
from wav2sem_blender.pipeline.audio import Speech
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig, ModelFolder, Wav2SemConfig, save_model
from wav2sem_blender.pipeline.frame_timing import FrameGrid, encoder_frames
from wav2sem_blender.pipeline.hosts.faceformer import FaceFormer
from wav2sem_blender.pipeline.hosts.faceformer_channels import FaceFormerChannels
from wav2sem_blender.pipeline.infer import style_weights
from wav2sem_blender.pipeline.listening import utterance_windows
from wav2sem_blender.pipeline.windows import plan, run_windows

DEMO_SPEECH = ASSETS / "demo_speech.flac"


@pytest.fixture(scope="module")
def speech() -> tuple[np.ndarray, int]:
    return sf.read(DEMO_SPEECH, dtype="float32")


@pytest.fixture(scope="module")
def onnx() -> SpeechAnimator:
    return SpeechAnimator.load("default", engine="onnx")


@pytest.fixture(scope="module")
def demo_motion(onnx: SpeechAnimator):
    return onnx.animate_file(DEMO_SPEECH)


def test_demo_speech_becomes_named_curves(demo_motion, speech) -> None:
    samples, rate = speech
    n_frames = FrameGrid(fps=30).animation_frames(len(samples))
    assert rate == 16000 and demo_motion.weights_TK.shape == (n_frames, len(demo_motion.channels))
    assert "jawOpen" in demo_motion.channels and demo_motion.fps == 30
    assert demo_motion.vertex_offsets(0, 5).shape == (5, 5023, 3)
    assert demo_motion.info["engine"] == "onnx" and len(demo_motion.info["audio_sha256"]) == 64
    assert demo_motion.weights_TK.min() >= 0 and demo_motion.weights_TK.max() <= 1
    assert demo_motion.phones.names[0] == "SIL" and len(demo_motion.phones.names) == 40
    assert demo_motion.phones.posteriors_LP.shape[0] == encoder_frames(len(samples))
    jaw_T = demo_motion.weights_TK[:, demo_motion.channels.index("jawOpen")]
    assert jaw_T.max() - jaw_T.min() > 0.1, "the mouth must open and close"


def test_file_and_array_agree(onnx, demo_motion, speech) -> None:
    motion = onnx.animate(*speech)
    np.testing.assert_allclose(motion.weights_TK, demo_motion.weights_TK, atol=1e-6)


def test_torch_engine_agrees(demo_motion) -> None:
    pytest.importorskip("torch")
    """The graph's matrices have 8 bits, which moves a weight by 0.0005 in the mean and by 0.01 to 0.03 at most."""
    torch_motion = SpeechAnimator.load("default", engine="torch", device="cpu").animate_file(DEMO_SPEECH)
    apart_TK = np.abs(torch_motion.weights_TK - demo_motion.weights_TK)
    assert apart_TK.max() < 0.05 and apart_TK.mean() < 0.002
    assert torch_motion.info["engine"] == "torch"
    apart_LP = np.abs(torch_motion.phones.posteriors_LP - demo_motion.phones.posteriors_LP)
    assert apart_LP.mean() < 0.002
    said = [motion.phones.posteriors_LP.argmax(1) for motion in (torch_motion, demo_motion)]
    assert (said[0] == said[1]).mean() > 0.97


def test_loudness_offset_and_channels_do_not_matter(onnx, demo_motion, speech) -> None:
    """8-bit activations round differently wherever the spectrogram's last digit does; torch differs by 3e-6."""
    samples, rate = speech
    stereo = np.stack([samples, samples]) * 0.05 + 0.2
    apart_TK = np.abs(onnx.animate(stereo, rate).weights_TK - demo_motion.weights_TK)
    assert apart_TK.max() < 0.03 and apart_TK.mean() < 1e-3


def test_loudness_does_not_matter_at_all_without_8_bits(speech) -> None:
    pytest.importorskip("torch")
    samples, rate = speech
    animator = SpeechAnimator.load("default", engine="torch", device="cpu")
    quiet = animator.animate(np.stack([samples, samples]) * 0.05 + 0.2, rate)
    np.testing.assert_allclose(quiet.weights_TK, animator.animate(samples, rate).weights_TK, atol=1e-4)


def test_semantic_strength_scales_the_sentence_vector(onnx, demo_motion, speech) -> None:
    off, half = (onnx.animate(*speech, semantic_strength=s).weights_TK for s in (0, 0.5))
    on = demo_motion.weights_TK
    assert 0 < np.abs(half - on).mean() < np.abs(off - on).mean()
    with pytest.raises(ValueError, match="finite"):
        onnx.animate(*speech, semantic_strength=float("nan"))


def test_styles(onnx, speech) -> None:
    names = onnx.folder.config.styles
    assert names == ("natural", "clear", "mumbled", "artist")
    natural, clear, mumbled, artist = (onnx.animate(*speech, style=name).weights_TK for name in names)
    mixed = onnx.animate(*speech, style=[0.5, 0.5, 0, 0]).weights_TK
    for one, other in itertools.combinations((natural, clear, mumbled, artist), 2):
        assert np.abs(one - other).mean() > 5e-3
    assert np.abs(mixed - natural).mean() < np.abs(clear - natural).mean()
    opening = [weights_TK[:, onnx.folder.config.channels.index("jawOpen")].std() for weights_TK in (mumbled, clear)]
    assert opening[0] < opening[1], "a clear mouth moves more than a mumbling one"
    np.testing.assert_array_equal(style_weights("1", names), [0, 1, 0, 0])
    for wrong in ("nobody", 4, -1, [1.0]):
        with pytest.raises(ValueError, match="style"):
            style_weights(wrong, names)


def test_articulation_ends_at_two_of_the_styles(copy: Path, speech) -> None:
    edit(copy, lambda config: config["model"].update(articulation=config["model"]["styles"][:2]))
    animator = SpeechAnimator.load(copy, engine="onnx")
    mumbled, clear = animator.folder.config.articulation or ()
    for value, style in ((-1.0, mumbled), (1.0, clear)):
        np.testing.assert_array_equal(
            animator.animate(*speech, style=clear, articulation=value).weights_TK,
            animator.animate(*speech, style=style).weights_TK,
        )
    half = animator.animate(*speech, style=clear, articulation=-0.5)
    assert half.info["style"] == f"0.5 {mumbled} + 0.5 {clear}"


def test_a_model_says_whether_it_has_articulation(copy: Path) -> None:
    edit(copy, lambda config: config["model"].pop("articulation", None))
    assert ModelFolder.open(copy).config.articulation is None, "folders of earlier releases have no such key"
    edit(copy, lambda config: config["model"].update(articulation=None))
    assert ModelFolder.open(copy).config.articulation is None
    config = dataclasses.replace(ModelFolder.open(copy).config, styles=("a", "b", "c"), articulation=("c", "a"))
    assert ModelConfig.from_json(config.to_json()) == config


def test_progress_runs_through_all_stages(onnx, tmp_path) -> None:
    seen: list[tuple[str, float]] = []
    onnx.animate_file(DEMO_SPEECH, progress=lambda stage, fraction: seen.append((stage, fraction)))
    assert list(dict.fromkeys(stage for stage, _ in seen)) == ["audio", "features", "motion"]
    assert all(0 <= fraction <= 1 for _, fraction in seen) and seen[-1] == ("motion", 1.0)


def test_up_to_20_s_is_one_window() -> None:
    for seconds, count in ((1, 1), (20, 1), (20.1, 2), (36, 2), (37, 3)):
        n_samples = int(16000 * seconds)
        positions = FrameGrid(fps=30).positions(n_samples)
        windows = plan(n_samples, positions)
        assert len(windows) == count
        assert windows[0].first == 0 and windows[-1].last == len(positions) and windows[-1].stop == n_samples
        assert all(w.stop - w.start <= 20 * 16000 and w.start % 320 == 0 for w in windows[:-1])


def test_windows_read_the_recordings_own_grid() -> None:
    """Windows that encode the time of each frame give one unbroken ramp."""
    n_samples = 16000 * 63 + 77
    positions = FrameGrid(fps=30).positions(n_samples)
    windows = plan(n_samples, positions)
    ramp = run_windows(windows, len(positions), lambda w: positions[w.first : w.last, None], lambda done: None)
    np.testing.assert_allclose(ramp[:, 0], positions, rtol=1e-6, atol=1e-3)


def test_no_seam_in_long_audio(onnx, speech, monkeypatch) -> None:
    """Where utterances meet, the memory makes no jump compared with one window over the whole recording; without the
    cross-fade and the sound around an utterance it does. Cuts in speech without a long pause are the hardest."""
    samples, rate = speech
    long = np.tile(samples[rate // 2 : -rate // 2], 4)
    fade_frames = 6

    def listened(window_s: float) -> tuple[np.ndarray, list[int]]:
        monkeypatch.setattr(onnx._listener, "window_s", window_s)
        with Speech.from_array(long, rate) as recording:
            positions = onnx.folder.config.host.grid.positions(recording.n_samples)
            windows = utterance_windows(recording, positions, window_s)
            memory_RM = onnx._listener.listen(recording, 1.0, lambda stage, done: None).memory_RM
        return np.diff(memory_RM, axis=0), [int(window.first_frame * 0.6) for window in windows[1:]]

    whole, none = listened(30.0)
    usual_step = np.linalg.norm(whole, axis=1).mean()

    def largest_jump() -> float:
        steps, cuts = listened(20.0)
        assert cuts
        added = np.linalg.norm(steps - whole, axis=1) / usual_step
        return max(added[cut - fade_frames : cut + fade_frames + 1].max() for cut in cuts)

    assert not none and largest_jump() < 0.4
    monkeypatch.setattr(windows, "_ramp", lambda frames, begin, end, margin: np.float32(frames >= begin))
    monkeypatch.setattr(listening, "SURROUNDINGS_S", 0.02)
    assert largest_jump() > 1, "or this test cannot fail"


class OutOfMemory:
    """An engine whose GPU cannot hear more than 6 s at once."""

    name, device = "torch", "cuda"

    def __init__(self, inner) -> None:
        self.inner, self.longest_s = inner, 0.0

    def semantic(self, features_LD):
        return self.inner.semantic(features_LD)

    def hear(self, spectrogram_FM):
        if self.device == "cuda" and len(spectrogram_FM) > 6 * 100:
            raise MemoryError("CUDA out of memory")
        self.longest_s = max(self.longest_s, len(spectrogram_FM) / 100)
        return self.inner.hear(spectrogram_FM)

    def move_to_cpu(self) -> None:
        self.device = "cpu"


def test_out_of_gpu_memory_means_smaller_windows_and_says_so(onnx, speech, demo_motion) -> None:
    animator = SpeechAnimator(onnx.folder, OutOfMemory(onnx.engine))
    motion = animator.animate(*speech)
    assert animator.notes == [f"cuda ran out of memory: windows of {s:g} s instead" for s in (10, 5)]
    assert "windows of 5 s" in motion.info["notes"] and animator.engine.longest_s <= 5.01
    assert np.corrcoef(motion.weights_TK.ravel(), demo_motion.weights_TK.ravel())[0, 1] > 0.95


def test_then_the_cpu(onnx, speech, demo_motion) -> None:
    engine = OutOfMemory(onnx.engine)
    full = engine.hear
    engine.hear = lambda *a: (_ for _ in ()).throw(MemoryError()) if engine.device == "cuda" else full(*a)
    animator = SpeechAnimator(onnx.folder, engine)
    np.testing.assert_allclose(animator.animate(*speech).weights_TK, demo_motion.weights_TK, atol=1e-6)
    assert animator.notes[-1] == "cuda ran out of memory: the CPU did the rest"


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(DEFAULT_MODEL, tmp_path / "model"))


def edit(folder: Path, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_damaged_models_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors: damaged .* copy it again"):
        SpeechAnimator.load(copy)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors: missing"):
        SpeechAnimator.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=99), "format version 99, this release reads 1 and 2"),
        (lambda c: c["model"].pop("channels"), r"the key model\.channels is missing"),
        (lambda c: c["model"].update(channels="jawOpen"), r'model\.channels is "jawOpen"; its JSON type must be array'),
        (lambda c: c.pop("model"), "the key model is missing"),
        (lambda c: c.update(model=[]), r"config\.json: model is \[\]; its JSON type must be object"),
        (lambda c: c.update(files=[]), r"files is \[\]; its JSON type must be object"),
        (lambda c: c["files"].pop("model.safetensors"), r"the key files\.model\.safetensors is missing"),
        (lambda c: c.update(surprise=1), "unknown key surprise; this release knows format_version, model, files"),
        (lambda c: c["model"].update(surprise=1), r"unknown key model\.surprise; this release knows name, encoder, "),
        (
            lambda c: c["model"]["encoder"].update(x=1),
            r"unknown key model\.encoder\.x; this release knows kind, config",
        ),
        (lambda c: c["model"]["host"].update(x=1), r"unknown key model\.host\.x; this release knows kind, settings"),
        (lambda c: c["model"]["host"].pop("kind"), r"the key model\.host\.kind is missing"),
        (
            lambda c: c["model"]["host"].update(kind="nothing"),
            r"unknown host kind 'nothing'; this release knows .*faceformer, faceformer_channels",
        ),
        (
            lambda c: c["model"]["host"]["settings"].update(width=64),
            r"unknown key model\.host\.settings\.width; this release knows dim, heads, ffn_dim, period, fps, ",
        ),
        (
            lambda c: c["model"]["host"]["settings"].update(dim="64"),
            r'settings\.dim is "64"; its JSON type must be integer',
        ),
        (lambda c: c["model"]["host"]["settings"].update(fps=24), "it has 30 fps with 1 or 25 fps with 2"),
        (lambda c: c["model"].update(host=[]), r"model\.host is \[\]; its JSON type must be object"),
        (lambda c: c["model"].update(articulation="ab"), r'model\.articulation is "ab"; its JSON type must be array'),
        (lambda c: c["model"].update(articulation=["a", "b"]), r"articulation is \[.a., .b.\]; two of the styles"),
        (lambda c: c["model"].update(articulation=c["model"]["styles"][:1]), "two of the styles"),
    ],
)
def test_other_formats_are_refused(copy: Path, change, message: str) -> None:
    edit(copy, change)
    with pytest.raises(UserError, match=message) as caught:
        SpeechAnimator.load(copy)
    assert str(caught.value).startswith(str(copy / "config.json"))


TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "n_mels": 20,
    "conv_dim": [8, 8],
    "conv_kernel": [3, 3],
    "conv_stride": [1, 2],
}


@pytest.fixture
def separate(tmp_path) -> Path:
    """A model with a HuBERT that hears a spectrogram, and a Wav2Sem of its own, as the bundled one of 0.1.0: tiny."""
    torch = pytest.importorskip("torch")
    from wav2sem_blender.pipeline.nn.face_model import FaceModel

    shipped = ModelFolder.open(DEFAULT_MODEL).config
    config = dataclasses.replace(
        shipped,
        encoder=EncoderConfig(kind="hubert", config=TINY),
        wav2sem=Wav2SemConfig(config=TINY, target_dim=6),
        host=FaceFormerChannels(dropout=0.0),
        styles=("a", "b"),
        articulation=None,
        phones=(),
    )
    torch.manual_seed(0)
    model = FaceModel(config)
    torch.nn.init.normal_(model.decoder.motion_head.weight, 0, 0.1)
    torch.nn.init.constant_(model.decoder.motion_head.bias, 0.3)
    save_model(tmp_path / "separate", config, {key: value.numpy() for key, value in model.state_dict().items()})
    return tmp_path / "separate"


def test_a_model_of_separate_encoders_animates(separate: Path, speech) -> None:
    """Long audio in windows equals one window, and the sentence vector counts."""
    animator = SpeechAnimator.load(separate)
    seen: list[str] = []
    motion = animator.animate(*speech, progress=lambda stage, done: seen.append(stage))
    assert list(dict.fromkeys(seen)) == ["semantics", "features", "motion"]
    assert motion.phones is None and motion.weights_TK.shape == (197, 27) and motion.weights_TK.std(0).max() > 1e-4
    assert 0 <= motion.weights_TK.min() < motion.weights_TK.max() <= 1
    assert np.abs(animator.animate(*speech, semantic_strength=0).weights_TK - motion.weights_TK).max() > 1e-4


def as_format_1(config: dict) -> None:
    """As releases before hosts wrote it."""
    settings = config["model"].pop("host")["settings"]
    for later in ("feedback", "look_ahead", "steady"):
        settings.pop(later)
    config["model"]["decoder"] = settings
    config["format_version"] = 1


def test_a_folder_of_format_1_gives_the_same_bits(separate: Path, speech) -> None:
    new = SpeechAnimator.load(separate)
    edit(separate, as_format_1)
    old = SpeechAnimator.load(separate)
    assert old.folder.config == new.folder.config
    np.testing.assert_array_equal(old.animate(*speech).weights_TK, new.animate(*speech).weights_TK)


def test_format_1_on_named_keys_is_faceformer(copy: Path) -> None:
    edit(copy, as_format_1)
    edit(copy, lambda config: config["model"].update(channels=["key_00", "bias"]))
    assert ModelFolder.open(copy).config.host == FaceFormer(dropout=0.0)
    edit(copy, lambda config: config["model"]["decoder"].update(dim="64"))
    with pytest.raises(UserError, match=r'settings\.dim is "64"'):
        ModelFolder.open(copy)


def test_saving_writes_format_2(separate: Path, tmp_path: Path) -> None:
    edit(separate, as_format_1)
    old = ModelFolder.open(separate)
    saved = save_model(tmp_path / "saved", old.config, old.tensors())
    description = json.loads((saved.path / "config.json").read_text())
    assert description["format_version"] == 2 and "decoder" not in description["model"]
    assert description["model"]["host"]["kind"] == "faceformer_channels"
    assert saved.config == old.config


def test_missing_model_engine_device(tmp_path, copy: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model here"):
        SpeechAnimator.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="known are auto, onnx, torch"):
        SpeechAnimator.load(copy, engine="tensorflow")
    with pytest.raises(ValueError, match="runs on the CPU"):
        SpeechAnimator.load(copy, engine="onnx", device="cuda")
    (copy / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not the description of a Wav2Sem model"):
        SpeechAnimator.load(copy)


def test_neither_engine(monkeypatch) -> None:
    monkeypatch.setattr("wav2sem_blender.pipeline.infer._installed", lambda module: False)
    with pytest.raises(ValueError, match="neither ONNX Runtime nor torch"):
        SpeechAnimator.load()
    with pytest.raises(ValueError, match="the torch engine needs torch and transformers"):
        SpeechAnimator.load(engine="torch")


def test_config_round_trip() -> None:
    config = ModelFolder.open(DEFAULT_MODEL).config
    assert ModelConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="30 fps with 1 or 25 fps with 2"):
        dataclasses.replace(config.host, fps=25)
