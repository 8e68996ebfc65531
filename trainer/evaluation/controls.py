# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls of the sentence vector F_s: as trained, off, constant, another clip's, or the text's own.

F_s is constant within a clip, so a gain counts only against a constant vector and against a wrong one.

Shapes: E sentence space, S samples, R memory frames, M decoder width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.infer import SpeechAnimator

TRAINED, NONE = "trained", "none"
LABELS = {
    TRAINED: "F_s as trained",
    NONE: "no semantics (strength 0)",
    "constant": "constant F_s (the clips' mean)",
    "shuffled": "another clip's F_s",
    "bert_c": "oracle: BERT_c of the text",
    "bert_m": "oracle: BERT_m of the text",
}
ORACLES = {"bert_c": "cls", "bert_m": "mean"}
PLAIN_LABEL = "the model (no Wav2Sem)"


@dataclass(kw_only=True)
class Semantics:
    """One row of the table: the vector (E,) of every clip by name, or why there is none.

    With `vectors` None, the model's own F_s is used at `strength`. Otherwise all utterances of a clip get its vector.
    """

    name: str
    label: str
    strength: float = 1.0
    vectors: Mapping[str, np.ndarray] | None = None
    unavailable: str = ""


@dataclass
class InjectingEngine:
    """An engine with an injected sentence vector; it encodes the same audio only once for all styles."""

    inner: Any
    vector_E: np.ndarray | None = None
    heard: list[np.ndarray] = field(default_factory=list)
    _known: dict[tuple[bytes, ...], np.ndarray] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def start(self, vector_E: np.ndarray | None) -> None:
        """Begin a clip; None uses the model's own F_s."""
        self.vector_E, self.heard = vector_E, []
        self._known.clear()

    def semantic(self, waveform_S: np.ndarray) -> np.ndarray:
        """The clip's vector, or the model's own F_s (E,)."""
        if self.vector_E is not None:
            return self.vector_E
        key = (waveform_S.tobytes(),)
        if key not in self._known:
            self._known[key] = self.inner.semantic(waveform_S)
            self.heard.append(self._known[key])
        return self._known[key]

    def memory(self, waveform_S: np.ndarray, positions_R: np.ndarray, semantic_RE: np.ndarray | None) -> np.ndarray:
        """Fused features (R, M), the same for every style."""
        semantic = b"" if semantic_RE is None else semantic_RE.tobytes()
        key = (waveform_S.tobytes(), positions_R.tobytes(), semantic)
        if key not in self._known:
            self._known[key] = self.inner.memory(waveform_S, positions_R, semantic_RE)
        return self._known[key]


def injecting(animator: SpeechAnimator) -> tuple[SpeechAnimator, InjectingEngine]:
    """The same model behind an engine whose sentence vector can be replaced."""
    engine = InjectingEngine(animator.engine)
    return SpeechAnimator(animator.folder, engine), engine  # type: ignore[arg-type]


def derangement(count: int, seed: int) -> np.ndarray:
    """A permutation (count,) without fixed points: one random cycle (Sattolo's algorithm).

    Raises:
        UserError: there are fewer than two items.
    """
    if count < 2:
        raise UserError("a shuffled F_s needs at least two clips")
    rng, order = np.random.default_rng(seed), np.arange(count)
    for last in range(count - 1, 0, -1):
        other = int(rng.integers(last))
        order[[last, other]] = order[[other, last]]
    return order


def controls(
    heard: Mapping[str, np.ndarray],
    texts: Mapping[str, str | None],
    seed: int,
    text_model: str = "",
    normalise: bool = False,
) -> list[Semantics]:
    """Every control of a model with a Wav2Sem.

    Args:
        heard: clip name -> the model's own F_s (E,).
        texts: clip name -> what is said, or None.
        seed: of the shuffle.
        text_model: folder or hub name; "" is the MiniLM from PyPI.
        normalise: scale text vectors to length sqrt(E), as the model's targets were.
    """
    names, vectors_NE = list(heard), np.stack(list(heard.values()))
    mean_E = vectors_NE.mean(0)
    rows = [
        _row(NONE, strength=0.0),
        _row("constant", vectors=dict.fromkeys(names, mean_E)),
    ]
    if len(names) > 1:
        others = derangement(len(names), seed)
        rows.append(_row("shuffled", vectors=dict(zip(names, vectors_NE[others], strict=True))))
    else:
        rows.append(_row("shuffled", unavailable="there is one clip only"))
    return rows + _oracles(texts, text_model, normalise, vectors_NE)


def _row(name: str, **parts: Any) -> Semantics:
    return Semantics(name=name, label=LABELS[name], **parts)


def _oracles(
    texts: Mapping[str, str | None], text_model: str, normalise: bool, heard_NE: np.ndarray
) -> list[Semantics]:
    rows: list[Semantics] = []
    reason, width = "", heard_NE.shape[1]
    if untold := [clip for clip, text in texts.items() if not text]:
        reason = f"{len(untold)} of {len(texts)} clips have no text; add sentences.tsv beside the data"
    for name, target in ORACLES.items():
        vectors_NE = np.zeros((0, width))
        if not reason:  # do not look twice for a missing text model
            try:
                vectors_NE = _text_vectors([text for text in texts.values() if text], text_model, target, normalise)
            except (OSError, ModuleNotFoundError, UserError) as error:
                reason = f"text model: {str(error).splitlines()[0]}"
        if not reason and vectors_NE.shape[1] != width:
            reason = f"text vectors have {vectors_NE.shape[1]} dimensions, this model's sentence space {width}; " + (
                "name the text model that it learnt from in an experiment of your own"
            )
        vectors = None if reason else dict(zip(texts, vectors_NE, strict=True))
        row = _row(name, vectors=vectors, unavailable=reason)
        rows.append(row)
        ratio = 1.0 if reason else np.linalg.norm(vectors_NE, axis=1).mean() / np.linalg.norm(heard_NE, axis=1).mean()
        if not 0.5 <= ratio <= 2:
            row.label += f" ({ratio:.2g} times as long as F_s; is normalise_target the same as in pretraining?)"
    return rows


def _text_vectors(texts: Sequence[str], text_model: str, target: str, normalise: bool) -> np.ndarray:
    from ..speech.sentences import text_vectors

    return text_vectors(texts, text_model, target, normalise=normalise).numpy()
