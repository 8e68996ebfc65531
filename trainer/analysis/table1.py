# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer evaluate table1 --data DATA --models MODELS --out OUT`: the paper's Table 1.

Every host of the paper, without and with Wav2Sem, on VOCASET and BIWI, beside the published rows. Writes report.html
(needs no network), results.md and results.json, and below evaluations/ what `evaluate` writes for each model.

DATA has the folders VOCASET, BIWI and LibriSpeech; those that are missing are left out. MODELS is a folder of model
folders or finetune runs named HOST-SET and HOST-wav2sem-SET, such as faceformer-wav2sem-vocaset; or a file with lines
NAME<tab>PATH. A folder `ablation` in it is a run of `finetune bundled_ablation`. Models that are missing are rows too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.files import FolderKind, write_atomically
from wav2sem_blender.pipeline.checkpoint import ModelFolder
from wav2sem_blender.pipeline.nn.encoders import KINDS, WHISPER

from ..evaluation.controls import LABELS, NONE, TRAINED
from ..evaluation.host_rows import (
    COLUMNS,
    NOT_GIVEN,
    PAPER_HOSTS,
    RIVALS,
    HostRow,
    check_named,
    clips_won,
    find_models,
    measure,
    verdict,
)
from ..evaluation.protocols import EvaluateVertices
from ..evaluation.tables import CAVEATS, UNITS, PublishedRow, definitions, figure, five_digits
from ..loops.ablation import HEADS, summary
from ..runs.run import git_commit
from .analyze import near_homophone_blocks
from .encoders_under_test import Given
from .pictures import errors_of_hosts
from .protocol import CompareHosts
from .report import Block, Note, Picture, Section, Table, as_markdown, write_report

_FOLDER = FolderKind(
    made_by="a comparison of hosts",
    names=("results.json", "results.md", "report.html", "evaluations", "alignments.tsv.gz", "*.png"),
)
_MEANING = (
    "F_s is one vector for a whole sentence, so a lower error alone does not show that meaning helps: any vector "
    "shifts what the face reads. “Meaning helps” is yes only if F_s as trained has a lower LVE than the host without "
    "Wav2Sem, a constant vector and another clip's, and if it wins so many clips of the last two that chance would do "
    "so once in 20 times or less (sign test; a clip counts once, as the mean of its styles). The oracle rows read the "
    "text itself, which bounds what a perfect Wav2Sem could add."
)


def compare_hosts(config: CompareHosts, data: Path, out: Path, models: Path, device: str) -> list[HostRow]:
    """Measure every model that is there, write the three reports, and return all rows.

    Raises:
        MissingFileError: `data` has none of the sets.
        UserError: `models` names no row, or a model is not what its name says; nothing was measured yet.
    """
    if not data.is_dir():
        raise UserError("{data}: is a file; --data is the folder that holds the data sets", data=data)
    folders = {each.kind: _below(data, each.kind) for each in config.sets}
    if not any(folders.values()):
        raise MissingFileError(
            "{data}: has no folder {names}; --data is the folder that holds the data sets",
            data=data,
            names=" or ".join(kind.upper() for kind in folders),
        )
    given, unused = find_models(models, tuple(folders))
    rows = [
        HostRow(data=kind, host=host, wav2sem=wav2sem, path=given.get((kind, host, wav2sem)))
        for kind in folders
        for host in (*PAPER_HOSTS, *sorted({host for other, host, _ in given if other == kind} - PAPER_HOSTS.keys()))
        for wav2sem in (False, True)
    ]
    for row in rows:
        check_named(row)
    _FOLDER.claim(out)
    for each in config.sets:
        for row in rows:
            if row.data == each.kind and row.path is not None:
                measure(each, row, folders[each.kind], out, device)
    sections, words = [], dict[str, Any]()
    for each in config.sets:
        some = [row for row in rows if row.data == each.kind]
        sections += [Section(title=each.kind.upper(), blocks=_set_blocks(each, some, out))]
    sections.append(Section(title="Does meaning help?", blocks=[_MEANING, *(_controls(rows, out))]))
    sections.append(Section(title="Ablation", blocks=_ablation(models)))
    blocks, words = _words(config, rows, _below(data, "librispeech"), out, device)
    sections.append(Section(title="Near-homophones", blocks=blocks))
    sections.append(Section(title="What the figures are", blocks=_facts(rows, unused)))
    title = "Table 1: hosts without and with Wav2Sem"
    results = {
        "config": dataclasses.asdict(config),
        "rows": [_plain(row) for row in rows],
        "near_homophones": words,
        "unused": unused,
        "date": date.today().isoformat(),
        "commit": git_commit(),
    }
    write_atomically(out / "results.json", (json.dumps(results, indent=1, default=float) + "\n").encode())
    markdown = as_markdown(title, sections)
    write_atomically(out / "results.md", markdown.encode())
    print(markdown)
    print(write_report(out / "report.html", title, sections))
    return rows


def _below(folder: Path, name: str) -> Path | None:
    """The folder of that name in any case."""
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() == name]
    return found[0] if found else None


def _set_blocks(config: EvaluateVertices, rows: Sequence[HostRow], out: Path) -> list[Block]:
    """Table 1 for one data set, and its picture."""
    measured = [row for row in rows if row.results is not None]
    lines: list[list[str]] = []
    for row in rows:
        figures = row.figures()
        own = [figure(figures, key) for key in COLUMNS] if figures else [row.unavailable, *[""] * (len(COLUMNS) - 1)]
        published: list[PublishedRow | None] = [*row.published(config.split)] or [None]
        for number, other in enumerate(published):
            known = [five_digits(value) for value in (other.lve, other.mve, other.fdd)] if other else ["", "", ""]
            source = other.source if other else "no figure known here"
            lines.append([*([row.label, *own] if not number else [""] * (len(own) + 1)), *known, source])
    for row in measured[:1]:
        still = row.figures("still")
        recorded = (row.results or {})["recorded"]
        chance = "" if recorded["chance_mtm_ms"] is None else f"{recorded['chance_mtm_ms']:.1f}"
        lines.append(["a face that never moves", *(figure(still or {}, key) for key in COLUMNS), "", "", "", ""])
        lines.append(["the face of another recording", "", "", "", chance, "", "", "", "", ""])
        lines.append(["the recorded face", "0", "0", "0", "0", figure(recorded, "slcc"), "", "", "", ""])
    header = (
        "host",
        "LVE",
        "MVE",
        "FDD",
        "MTM, ms",
        "SLCC",
        "LVE, published",
        "MVE, published",
        "FDD, published",
        "published by",
    )
    blocks: list[Block] = []
    if measured:
        results = measured[0].results or {}
        data, (squared, plain) = results["data"], UNITS[results["data"]["unit"]]
        caption = (
            f"{data['name']}, {data['split']} split: {data['clips']} clips of {data['subjects']} subject(s); LVE and "
            f"FDD in {squared}, MVE in {plain}, LVE and MVE pooled over frames, FDD signed; lips: "
            f"{results['regions']['lips']}; upper face: {results['regions']['upper']}"
        )
        blocks.append(Table(caption=caption, header=header, rows=lines))
        blocks.append(_picture(config, rows, out))
        blocks.append(definitions(data["unit"], results["recorded"]))
    else:
        blocks.append(Note(text=f"No model was measured on {config.kind.upper()}."))
        blocks.append(Table(caption=f"{config.kind}, {config.split} split", header=header, rows=lines))
    return blocks


def _picture(config: EvaluateVertices, rows: Sequence[HostRow], out: Path) -> Picture:
    shown: dict[str, dict[str, float]] = {}
    for row in rows:
        marks = shown.setdefault(row.host_name, {})
        own = "with Wav2Sem" if row.wav2sem else "without Wav2Sem"
        for mark, semantics in {own: TRAINED, "constant F_s": "constant", "another clip's F_s": "shuffled"}.items():
            if figures := row.figures(semantics):
                marks[mark] = figures["lve_frames"]
        for other in row.published(config.split)[:1]:
            if other.lve is not None:
                marks[f"{own}, published"] = other.lve
    path = errors_of_hosts(out / f"lve_{config.kind}.png", {name: marks for name, marks in shown.items() if marks})
    caption = f"LVE on {config.kind.upper()}, lower is better, in the unit of the table; published figures are hollow."
    return Picture(path=path, caption=caption)


def _controls(rows: Sequence[HostRow], out: Path) -> list[Block]:
    """LVE of every model with a Wav2Sem, and with other vectors in the place of its F_s."""
    plain = {(row.data, row.host): row.figures() for row in rows if not row.wav2sem}
    lines = []
    for row in rows:
        own = row.figures()
        if not row.wav2sem or own is None:
            continue
        without = plain[row.data, row.host]
        lve = {name: (row.figures(name) or {}).get("lve_frames") for name in LABELS}
        plain_lve = without["lve_frames"] if without else None
        wins = {name: clips_won(out / "evaluations" / row.name, name) for name in RIVALS}
        lines.append(
            [f"{row.data}: {row.label}", five_digits(plain_lve), *(five_digits(lve[name]) for name in LABELS)]
            + [f"{won} of {of}" if of else "" for won, of in wins.values()]
            + [verdict(own["lve_frames"], [plain_lve, *(lve[name] for name in RIVALS)], list(wins.values()))]
        )
    if not lines:
        return [Note(text="Left out: no model with a Wav2Sem was measured.")]
    labels = [LABELS[name] if name != NONE else "the same model, F_s off" for name in LABELS]
    won = ["clips better than with a constant F_s", "clips better than with another's"]
    header = ["model", "without Wav2Sem", *labels, *won, "meaning helps"]
    return [Table(caption="LVE with other sentence vectors", header=header, rows=lines)]


def _ablation(models: Path) -> list[Block]:
    """The table of a `finetune bundled_ablation` run, whose models learnt with each kind of vector."""
    path = models / "ablation" / "results.json"
    if not path.is_file():
        return [Note(text=f"{NOT_GIVEN}: a run of “finetune bundled_ablation” as “ablation” in --models.")]
    learnt = summary(json.loads(path.read_text(encoding="utf-8")))
    caption = "The bundled face, trained and judged with each kind of sentence vector; mean ± spread over seeds"
    return [Table(caption=caption, header=["F_s", "seeds", *HEADS.values()], rows=learnt)]


def _words(
    config: CompareHosts, rows: Sequence[HostRow], data: Path | None, out: Path, device: str
) -> tuple[list[Block], Any]:
    """Distances of near-homophones in the encoders of the models with a Wav2Sem."""
    if data is None:
        return [Note(text="Left out: there is no LibriSpeech in --data.")], []
    models = {row.name: row.path for row in rows if row.wav2sem and row.path is not None}
    heard = {n: p for n, p in models.items() if ModelFolder.open(p).config.encoder.kind in (*KINDS, WHISPER)}
    notes: list[Block] = [
        Note(text=f"{name} is left out: it reads features that it is given.") for name in models.keys() - heard
    ]
    if not heard:
        return [*notes, Note(text="Left out: no model with a Wav2Sem was given.")], []
    blocks, measured = near_homophone_blocks(config.words, data, out, Given(models=heard), device, ("mse",))
    return [*notes, *blocks], measured


def _facts(rows: Sequence[HostRow], unused: Sequence[str]) -> list[Block]:
    """What every model is, the caveats of the published figures, and what was not read."""
    lines = []
    for row in rows:
        if row.results is None:
            continue
        model, made = row.results["model"], row.results
        target = model["provenance"].get("sentence_space", {}).get("target", "") if row.wav2sem else ""
        sentence = f"into {model['sentence_dim']} dimensions {target}".strip() if row.wav2sem else "none"
        engine = f"{made['engine']} on {made['device']}"
        lines.append([row.name, model["name"], model["weights_sha256"][:16], model["encoder"], sentence, engine])
    blocks: list[Block] = []
    if lines:
        header = ["row", "model", "weights (sha256)", "encoder", "Wav2Sem", "engine"]
        blocks.append(Table(caption="Models", header=header, rows=lines))
    blocks += [Note(text=f"{name} in --models is no row's name and was not read.") for name in unused]
    return [*blocks, *CAVEATS, f"{date.today().isoformat()}, commit {git_commit()}."]


def _plain(row: HostRow) -> dict[str, Any]:
    split = row.results["data"]["split"] if row.results else "test"
    return {
        "name": row.name,
        "data": row.data,
        "host": row.host,
        "wav2sem": row.wav2sem,
        "unavailable": row.unavailable,
        "published": [dataclasses.asdict(other) for other in row.published(split)],
        "results": row.results,
    }
