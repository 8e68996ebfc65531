# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of the paper's Table 1: which hosts, where their models are, and what `evaluate` measured of each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.checkpoint import ModelFolder
from wav2sem_blender.pipeline.hosts import HOSTS

from .controls import TRAINED
from .evaluate import evaluate
from .protocols import EvaluateVertices
from .tables import PUBLISHED_ROWS, PublishedRow

NOT_GIVEN = "not given"
PAPER_HOSTS = {
    "voca": "VOCA",
    "faceformer": "FaceFormer",
    "codetalker": "CodeTalker",
    "unitalker": "UniTalker",
    "facediffuser": "FaceDiffuser",
    "lgldm": "LG-LDM",
}
"""Kind -> name of the hosts of Table 1, in its order. Other hosts have rows if a model of them is given."""
RIVALS = ("constant", "shuffled")
MOST_CHANCE = 0.05
COLUMNS = ("lve_frames", "mve_frames", "fdd", "mtm_ms", "slcc")


@dataclass(kw_only=True)
class HostRow:
    """One row of Table 1: a host with or without Wav2Sem on a data set, and what `evaluate` returned, or why not."""

    data: str
    host: str
    wav2sem: bool
    path: Path | None = None
    unavailable: str = NOT_GIVEN
    results: Mapping[str, Any] | None = None

    @property
    def host_name(self) -> str:
        """As papers name it."""
        return PAPER_HOSTS.get(self.host) or HOSTS[self.host]

    @property
    def label(self) -> str:
        """As the published rows name it."""
        return self.host_name + (" + Wav2Sem" if self.wav2sem else "")

    @property
    def name(self) -> str:
        """As --models names it."""
        return f"{self.host}{'-wav2sem' if self.wav2sem else ''}-{self.data}"

    def figures(self, semantics: str = TRAINED) -> Mapping[str, Any] | None:
        """The evaluation's row under these semantics, if it was measured."""
        rows = self.results["rows"] if self.results else ()
        return next((row for row in rows if row["semantics"] == semantics and not row["unavailable"]), None)

    def published(self, split: str) -> list[PublishedRow]:
        """What is published of this row."""
        return [row for row in PUBLISHED_ROWS if (row.data, row.split, row.host) == (self.data, split, self.label)]


def find_models(place: Path, kinds: Sequence[str]) -> tuple[dict[tuple[str, str, bool], Path], list[str]]:
    """The models of a folder or a list by (set, host, with Wav2Sem), and the names in the folder that are no row.

    Raises:
        MissingFileError: there is no such folder or file.
        UserError: a line of the list is no row's, or nothing is.
    """
    if not place.exists():
        raise MissingFileError("{place}: there is no such folder; check --models", place=place)
    if place.is_dir():
        named = {path.name: path for path in sorted(place.iterdir()) if path.is_dir() and path.name != "ablation"}
    else:
        lines = [line.split("\t") for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
        named = {line[0].strip(): place.parent / line[-1].strip() for line in lines}
        if len(named) < len(lines):
            raise UserError("{place}: a name is there twice; a row has one model", place=place)
    found: dict[tuple[str, str, bool], Path] = {}
    unused = []
    for name, path in named.items():
        match = re.fullmatch(r"(\w+?)(-wav2sem)?-(\w+)", name)
        if match and match[1] in PAPER_HOSTS | HOSTS and match[3] in kinds:
            found[match[3], match[1], bool(match[2])] = path
        else:
            unused.append(name)
    if not found or (unused and place.is_file()):
        raise UserError(
            "{place}: {what} no row of the table; a model is named HOST-SET or HOST-wav2sem-SET, with HOST one of "
            "{hosts}, and SET one of {kinds}",
            place=place,
            what=f"{', '.join(unused)}: is" if unused else "holds",
            hosts=", ".join(PAPER_HOSTS | HOSTS),
            kinds=", ".join(kinds),
        )
    return found, unused


def check_named(row: HostRow) -> None:
    """A run stands for its model; the model is of the named host, and has a Wav2Sem or has none."""
    if row.path is None:
        return
    if (row.path / "model" / "config.json").is_file():
        row.path = row.path / "model"
    config = ModelFolder.open(row.path).config
    for what, found, named in (
        ("host", config.host.KIND, row.host),
        ("Wav2Sem", *("with" if has else "without" for has in (config.wav2sem is not None, row.wav2sem))),
    ):
        if found != named:
            raise UserError(
                "{path}: named {name}, but its model differs ({what}: {found} instead of {named}); rename it",
                path=row.path,
                name=row.name,
                what=what,
                found=found,
                named=named,
            )


def measure(config: EvaluateVertices, row: HostRow, data: Path | None, out: Path, device: str) -> None:
    """Evaluate the row's model; what the user can mend is the row's reason, as the other rows do not depend on it."""
    if data is None:
        row.unavailable = f"no {row.data.upper()} in --data"
        return
    try:
        row.results = evaluate(config, data, out / "evaluations" / row.name, str(row.path), device)
        row.unavailable = ""
    except UserError as error:
        row.unavailable = f"not measured: {error}"


def verdict(own: float, rivals: Sequence[float | None], wins: Sequence[tuple[int, int]]) -> str:
    """Whether meaning helps, as `_MEANING` says."""
    if any(rival is not None and rival <= own for rival in rivals):
        return "no"
    if any(rival is None for rival in rivals):
        return "not known: the host without Wav2Sem or a control is missing"
    p = max(float(binomtest(won, of, alternative="greater").pvalue) for won, of in wins)
    return "yes" if p <= MOST_CHANCE else f"not shown: p = {p:.2g}"


def clips_won(folder: Path, rival: str) -> tuple[int, int]:
    """Number of clips with a lower LVE under the model's own F_s than under the rival, and of all; styles pooled."""
    lve: dict[str, dict[str, list[float]]] = {TRAINED: {}, rival: {}}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["semantics"] in lve:
            lve[row["semantics"]].setdefault(row["clip"], []).append(row["lve"])
    pairs = [(np.mean(lve[TRAINED][clip]), np.mean(others)) for clip, others in lve[rival].items()]
    return sum(bool(own < other) for own, other in pairs), len(pairs)
