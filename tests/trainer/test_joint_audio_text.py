# SPDX-License-Identifier: GPL-3.0-or-later
"""Token features of what is said, and the host that learns from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pocketsphinx")

from transformers import BertConfig, BertModel, BertTokenizerFast  # noqa: E402

from tests.trainer.miniature_faces import VOCASET_SUBJECTS, write_biwi, write_vocaset  # noqa: E402
from tests.trainer.test_finetune import without_noise  # noqa: E402
from tests.trainer.two_stages import NEVER, losses, run_in  # noqa: E402
from trainer.datasets.opening import open_face_data  # noqa: E402
from trainer.experiments import hosts  # noqa: E402
from trainer.loops.export import export  # noqa: E402
from trainer.loops.face_recipes import Export  # noqa: E402
from trainer.loops.finetune import finetune  # noqa: E402
from trainer.speech import token_features  # noqa: E402
from trainer.speech.token_features import TokenEncoder, evenly, spread, token_starts  # noqa: E402
from wav2sem_blender.errors import MissingFileError, UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402


def write_bert(folder: Path, words: list[str], width: int = 24) -> Path:
    """A BERT of random weights; "##" begins a piece within a word."""
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words) + 5, max_position_embeddings=40, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vocaset(tmp_path_factory) -> Path:
    """One clip of training, one of validation, with their text features."""
    folder = tmp_path_factory.mktemp("vocaset")
    write_vocaset(folder, layout="exported", subjects=VOCASET_SUBJECTS[1:3], sentences=(21,), seconds=0.6)
    clips = open_face_data("vocaset", folder).clips
    words = sorted({word for clip in clips for word in (clip.text or "").lower().split()})
    bert = write_bert(tmp_path_factory.mktemp("models") / "bert", words)
    assert token_features.main(["--data", str(folder), "--model", str(bert)]) == 0
    return folder


def test_a_token_lasts_to_the_next_and_pieces_share_their_word(tmp_path) -> None:
    encoder = TokenEncoder(str(write_bert(tmp_path / "bert", ["the", "sheep", "##s"])))
    states_NE, word_of = encoder(["the", "sheeps"])
    assert word_of == [None, 0, 1, 1, None] and states_NE.shape == (5, 24)
    starts_N = token_starts([("the", 0.1, 0.3), ("sheeps", 0.4, 0.8)], word_of)
    np.testing.assert_allclose(starts_N, [0, 0.1, 0.4, 0.6, 0.8])
    said_LE = spread(states_NE, starts_N, 50)
    middles_s = (np.arange(50) * 320 + 200) / 16_000
    expected_L = [sum(at >= start for start in starts_N[1:]) for at in middles_s]
    np.testing.assert_array_equal(said_LE, states_NE[expected_L])
    assert {*expected_L} == {0, 1, 2, 3, 4}
    with pytest.raises(UserError, match="the text has 52 tokens, and the model reads 40"):
        encoder(["the"] * 50)


def test_a_words_vectors_are_its_pieces_mean_in_context_and_without(tmp_path) -> None:
    encoder = TokenEncoder(str(write_bert(tmp_path / "bert", ["the", "a", "sheep", "##s"])))
    states_NE, _ = encoder(["the", "sheeps"])
    contextual_WE, embeddings_WE = encoder.of_words(["the", "sheeps"])
    np.testing.assert_allclose(contextual_WE, [states_NE[1], states_NE[2:4].mean(0)], atol=1e-6)
    other_WE, same_WE = encoder.of_words(["a", "sheeps"])
    assert np.abs(other_WE[1] - contextual_WE[1]).max() > 1e-3, "the other word changes the state"
    np.testing.assert_array_equal(same_WE[1], embeddings_WE[1])


def test_words_that_are_not_found_share_the_recording() -> None:
    assert evenly(["a", "bcd"], 2.0) == [("a", 0.0, 0.5), ("bcd", 0.5, 2.0)]


def test_every_clip_with_a_text_gets_a_file_at_the_encoders_rate(vocaset: Path) -> None:
    faces = open_face_data("vocaset", vocaset)
    for clip in faces.clips:
        features_LE = np.load(vocaset / "features" / f"{clip.name}.text.npy")
        assert features_LE.shape == (29, 24) and features_LE.dtype == np.float16
        assert len(np.unique(features_LE, axis=0)) > 1  # several tokens are said


def test_a_text_without_words_is_refused(tmp_path, capsys) -> None:
    import soundfile as sf

    sf.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    assert token_features.main([str(tmp_path / "a.wav"), "--text", "?!", "--model", str(tmp_path)]) == 1
    assert "token_features: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        token_features.main([])


def test_one_clip_is_learnt_and_the_model_reads_its_text(vocaset: Path, tmp_path) -> None:
    quiet = without_noise(hosts.joint_audio_text_smoke())
    config = replace(quiet, epochs=60, checkpoint_every=NEVER, valid_clips=0)
    folder = run_in(tmp_path / "face", config, finetune, vocaset, None, None)
    found = losses(folder)
    assert found[-1] < found[0] / 10
    animator = SpeechAnimator.load(folder / "model")
    clip = open_face_data("vocaset", vocaset).clips[0]
    recording, features = vocaset / f"wav/{clip.name}.wav", vocaset / f"features/{clip.name}.text.npy"
    motion = animator.animate_file(recording, features=features)
    assert motion.weights_TK.shape == (17, 65)
    in_onnx = SpeechAnimator.load(export(Export(), folder, tmp_path / "exported"), engine="onnx")
    again = in_onnx.animate_file(recording, features=features)
    np.testing.assert_allclose(again.weights_TK, motion.weights_TK, atol=1e-3)
    with pytest.raises(UserError, match="this host reads what is said itself"):
        run_in(tmp_path / "both", replace(config, semantics=True), finetune, vocaset, None, tmp_path)


def test_biwi_trains_and_a_missing_text_is_named(tmp_path) -> None:
    data = tmp_path / "biwi"
    write_biwi(data, layout="exported", subjects=("F2",), sentences=(1, 33), seconds=0.6)
    for name in ("lve", "fdd"):
        (data / f"{name}.txt").write_text("1, 2, 3")
    config = hosts.joint_audio_text_biwi_smoke()
    with pytest.raises(MissingFileError, match=r"F2_e01.text.npy: missing"):
        run_in(tmp_path / "none", config, finetune, data, None, None)
    (data / "features").mkdir()
    for name in ("F2_e01", "F2_e33"):
        np.save(data / f"features/{name}.text.npy", np.random.default_rng(0).standard_normal((29, 24)))
    folder = run_in(tmp_path / "face", config, finetune, data, None, None)
    assert len(losses(folder)) == 1 and (folder / "model" / "config.json").is_file()
