# SPDX-License-Identifier: GPL-3.0-or-later
"""F_s: of a Wav2Sem without a face, of a whole model, and when an utterance does not fit the GPU."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import ModelFolder, Wav2SemConfig, save_wav2sem  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402

RATE_HZ = 16_000
WAVEFORM_S = np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)
TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


@pytest.fixture
def wav2sem(tmp_path) -> Wav2Sem:
    """A Wav2Sem with random weights, saved in `tmp_path`/wav2sem as an import saves it."""
    torch.manual_seed(0)
    model = Wav2Sem(TINY, 10).eval()
    tensors = {f"wav2sem.{key}": value.numpy() for key, value in model.state_dict().items()}
    tensors["fusion.semantic_feature_map.bias"] = np.zeros(3, np.float32)  # from a CodeTalker file; unused
    save_wav2sem(tmp_path / "wav2sem", Wav2SemConfig(config=TINY, target_dim=10), tensors)
    return model


def test_a_wav2sem_alone_gives_sentence_vectors(tmp_path, wav2sem) -> None:
    vector_E = SpeechAnimator.load(tmp_path / "wav2sem").semantic(WAVEFORM_S, RATE_HZ)
    normalised_S = (WAVEFORM_S - WAVEFORM_S.mean()) / np.sqrt(WAVEFORM_S.var() + 1e-7)
    with torch.inference_mode():
        expected_E = wav2sem(torch.from_numpy(normalised_S)[None])[0].numpy()
    assert vector_E.shape == (10,)
    np.testing.assert_allclose(vector_E, expected_E, atol=1e-5 * np.abs(expected_E).max())


def test_it_has_no_face_and_says_what_to_do(tmp_path, wav2sem) -> None:
    encoder = SpeechAnimator.load(tmp_path / "wav2sem")
    for animate in (lambda: encoder.animate(WAVEFORM_S, RATE_HZ), lambda: encoder.animate_file("speech.wav")):
        with pytest.raises(
            ValueError, match=r"without a face; fuse it into a face model with `python -m trainer finetune`"
        ):
            animate()
    with pytest.raises(ValueError, match="without a face"):
        ModelFolder.open(tmp_path / "wav2sem")
    with pytest.raises(ValueError, match="no ONNX file; choose the torch engine"):
        SpeechAnimator.load(tmp_path / "wav2sem", engine="onnx")


def test_a_damaged_wav2sem_is_refused(tmp_path, wav2sem) -> None:
    weights = tmp_path / "wav2sem" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ValueError, match="damaged"):
        SpeechAnimator.load(tmp_path / "wav2sem")


def test_both_engines_agree_on_the_bundled_models_sentence_vector() -> None:
    """In direction, 0.9999; each number differs by up to 1 % of the largest, since the graph's matrices have 8 bits."""
    by_onnx_E, by_torch_E = (
        SpeechAnimator.load(engine=e, device="cpu").semantic(WAVEFORM_S, RATE_HZ) for e in ("onnx", "torch")
    )
    lengths = np.linalg.norm(by_onnx_E), np.linalg.norm(by_torch_E)
    assert by_onnx_E @ by_torch_E / np.prod(lengths) > 0.999 and lengths[0] == pytest.approx(lengths[1], rel=0.02)
    np.testing.assert_allclose(by_onnx_E, by_torch_E, atol=0.03 * np.abs(by_torch_E).max())


@pytest.fixture
def small_gpu(monkeypatch) -> SpeechAnimator:
    """The bundled model on a GPU too small for any utterance; "cpu:0" is torch's CPU under another name."""
    animator = SpeechAnimator.load(engine="torch", device="cpu")
    engine, forward = animator.engine, animator.engine._wav2sem.forward
    engine.device = "cpu:0"

    def out_of_memory(*tensors):
        if engine.device != "cpu":
            raise torch.OutOfMemoryError("tried to allocate 20.00 GiB")
        return forward(*tensors)

    monkeypatch.setattr(engine._wav2sem, "forward", out_of_memory)
    return animator


def test_a_sentence_vector_that_does_not_fit_the_gpu_is_made_on_the_cpu(small_gpu) -> None:
    vector_E = small_gpu.semantic(WAVEFORM_S, RATE_HZ)
    assert small_gpu.notes == ["cpu:0 ran out of memory: the CPU did the rest"], "no window was made smaller in vain"
    expected_E = SpeechAnimator.load(engine="torch", device="cpu").semantic(WAVEFORM_S, RATE_HZ)
    np.testing.assert_array_equal(vector_E, expected_E)


def test_a_recording_goes_to_the_cpu_when_smaller_windows_do_not_help(small_gpu) -> None:
    motion = small_gpu.animate(WAVEFORM_S, RATE_HZ)
    assert small_gpu.notes == [
        "cpu:0 ran out of memory: windows of 10 s instead",
        "cpu:0 ran out of memory: windows of 5 s instead",
        "cpu:0 ran out of memory: the CPU did the rest",
    ]
    assert motion.info["device"] == "cpu"
    expected = SpeechAnimator.load(engine="torch", device="cpu").animate(WAVEFORM_S, RATE_HZ)
    np.testing.assert_array_equal(motion.weights_TK, expected.weights_TK)


def test_out_of_memory_on_the_cpu_is_an_error(small_gpu, monkeypatch) -> None:
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("tried to allocate 20.00 GiB")

    monkeypatch.setattr(small_gpu.engine._wav2sem, "forward", out_of_memory)
    with pytest.raises(MemoryError):
        small_gpu.semantic(WAVEFORM_S, RATE_HZ)
