# SPDX-License-Identifier: GPL-3.0-or-later
"""An evaluation as Markdown: our rows, with everything that they depend on, and the published ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wav2sem_blender.files import write_atomically

ERROR_COLUMNS = {
    "lve_frames": "LVE, frames pooled",
    "lve_sequences": "LVE, mean of sequences",
    "mve_frames": "MVE, frames pooled",
    "mve_sequences": "MVE, mean of sequences",
    "fdd": "FDD, signed",
    "fdd_abs": "FDD, magnitude",
}
LIP_COLUMNS = {"mtm_ms": "MTM, ms", "slcc": "SLCC"}
UNITS = {"m": ("m²", "m"), "sqrt_area": ("√area² (the face's area is 1)", "√area")}


def write_results(out: Path, results: Mapping[str, Any], report: str) -> None:
    """Write OUT/results.json and results.md, and print the latter."""
    write_atomically(out / "results.json", (json.dumps(results, indent=1, default=float) + "\n").encode())
    write_atomically(out / "results.md", report.encode())
    print(report)


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A row of another evaluation; None if a figure is not stated or not reliable."""

    data: str
    split: str
    host: str
    source: str
    lve: float | None = None
    mve: float | None = None
    fdd: float | None = None


_WAV2SEM = "Wav2Sem, CVPR 2025"
PUBLISHED_ROWS = (
    PublishedRow(data="vocaset", split="test", host="FaceFormer", source=_WAV2SEM, lve=4.1090e-5),
    PublishedRow(data="vocaset", split="test", host="FaceFormer + Wav2Sem", source=_WAV2SEM, lve=3.9891e-5),
    PublishedRow(data="vocaset", split="test", host="UniTalker", source=_WAV2SEM, lve=3.54e-5),
    PublishedRow(data="vocaset", split="test", host="UniTalker", source="UniTalker's own (its issue 19)", lve=8.14e-6),
    PublishedRow(data="biwi", split="test", host="FaceFormer", source=_WAV2SEM, lve=4.9847e-4),
    PublishedRow(data="biwi", split="test", host="FaceFormer + Wav2Sem", source=_WAV2SEM, lve=4.9571e-4),
    PublishedRow(
        data="biwi", split="test", host="CodeTalker", source="CodeTalker, CVPR 2023", lve=4.7914e-4, fdd=4.1170e-5
    ),
    PublishedRow(data="biwi", split="test", host="FaceDiffuser", source="FaceDiffuser, MIG 2023", mve=6.8088e-3),
)
CAVEATS = (
    "The published figures may not follow one protocol: for VOCASET no paper states region lists, pooling or the "
    "styles of unseen subjects, and the released code has no lip list for it.",
    "The hosts' own BIWI rows equal those of earlier papers, so they were copied; only the rows with Wav2Sem are new.",
    "Published MVE on VOCASET (about 5.16e-5) cannot be in metres, as the LVE of 4.11e-5 m² has a root of 6.4 mm; its "
    "unit is unknown, so it is left out. UniTalker scales BIWI by 0.2, which makes its LVE 0.04 of ours. "
    "FaceDiffuser's released code divides each axis of BIWI by the neutral face's length along it, so its MVE may be "
    "in that unit, and its released BIWI model cannot be measured in ours.",
    "CodeTalker's author calls figures on VOCASET's test set unsuitable: its subjects have styles that no training "
    "subject has.",
    "“No semantics” switches F_s off in a model that was trained with it. It says nothing about a model trained "
    "without Wav2Sem.",
)


def vertices_markdown(results: Mapping[str, Any]) -> str:
    """The whole report of results.json."""
    model, data = results["model"], results["data"]
    caption = _caption(results)
    parts = [f"# {data['name']}, {data['split']} split: {model['name']}", _facts(results)]
    parts += ["## Errors", _errors(results["rows"]), caption, definitions(data["unit"], results["recorded"])]
    if len(results["per_style"]) > 1:
        parts += [f"## By style: {results['rows'][0]['label']}", _by_style(results["per_style"]), caption]
    if results["published"]:
        parts += ["## Beside the published figures", _beside_published(results)]
        parts += [f"The last rows: {caption}", "\n".join(f"- {text}" for text in CAVEATS)]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def five_digits(value: float | None) -> str:
    """Five digits; empty for None."""
    return "" if value is None else f"{value:.4e}"


def figure(row: Mapping[str, Any], key: str) -> str:
    """A figure of `ERROR_COLUMNS` or `LIP_COLUMNS` in the digits that it deserves; empty for None. MTM is of few
    sequences where the lips hardly move, and says so."""
    digits = {"mtm_ms": ".1f", "slcc": ".3f"}.get(key, ".4e")
    if row[key] is None:
        return ""
    matched, of = (row["matched_sequences"], row["sequences"]) if key == "mtm_ms" else (0, 0)
    return format(row[key], digits) + (f" ({matched} of {of})" if matched < of else "")


def _caption(results: Mapping[str, Any]) -> str:
    """Everything that a table's figures depend on, in one line."""
    data, regions, (squared, plain) = results["data"], results["regions"], UNITS[results["data"]["unit"]]
    return (
        f"{results['model']['name']} on {data['name']}'s {data['split']} split: {data['clips']} clips, "
        f"{data['sequences']} sequences, {data['frames']} frames; lips: {regions['lips']}; upper face: "
        f"{regions['upper']}; LVE and FDD in {squared}, MVE in {plain}; pooled as the headings say, else over "
        f"frames; {results['date']}."
    )


def _facts(results: Mapping[str, Any]) -> str:
    model, data, regions = results["model"], results["data"], results["regions"]
    wav2sem = f"Wav2Sem into {model['sentence_dim']} dimensions" if model["sentence_dim"] else "no Wav2Sem"
    missing = "".join(f"; {count} x {reason}" for reason, count in data["skipped"].items() if count)
    one_style = data["sequences"] == data["clips"]
    facts = {
        "model": f"{model['name']}, weights {model['weights_sha256'][:12]}, {model['encoder']} encoder, {wav2sem}",
        "data": f"{data['name']}, {data['split']} split, {data['clips']} clips, {data['subjects']} subject(s), "
        f"{data['fps']} fps, hash {data['sha256'][:12]}{missing}",
        "styles": ("one a clip, of: " if one_style else "every clip under each of: ") + ", ".join(data["styles"]),
        "frames": f"{data['frames']} in {data['sequences']} sequences; counted from the audio, never from the "
        "recorded motion, and cut to the common length",
        "lips (LVE)": regions["lips"],
        "upper face (FDD)": regions["upper"],
        "made": f"{results['date']}, commit {results['commit']}, {results['engine']} on {results['device']}",
    }
    if results["notes"]:
        facts["notes"] = "; ".join(results["notes"])
    return table(("", ""), facts.items())


def _errors(rows: Sequence[Mapping[str, Any]]) -> str:
    lines, columns = [], ERROR_COLUMNS | LIP_COLUMNS
    for row in rows:
        if row["unavailable"]:
            lines.append([row["label"], f"not measured: {row['unavailable']}", *[""] * (len(columns) - 1)])
        else:
            lines.append([row["label"], *(figure(row, key) for key in columns)])
    return table(("semantics", *columns.values()), lines)


def definitions(unit: str, recorded: Mapping[str, float | None]) -> str:
    """What the figures are, with those of the `recorded` faces."""
    squared, plain = UNITS[unit]
    slcc, chance = recorded["slcc"], recorded["chance_mtm_ms"]
    best = "cannot be told from so few" if slcc is None else f"is {slcc:.3f}"
    off = "" if chance is None else f" A face that moves as in another recording is off by {chance:.1f} ms."
    return (
        f"LVE ({squared}): mean over frames of the largest squared distance among the lip vertices. MVE ({plain}): "
        f"mean distance over frames and all vertices. FDD ({squared}): per sequence, mean over the upper face's "
        "vertices of the standard deviation over time of the squared displacement from the template, truth minus "
        "prediction; the mean over sequences (signed), and the mean of its magnitude. MTM (ms): how far the lips' "
        "openings and closings are from the recorded ones in time, and in how many sequences any could be matched, if "
        f"not in all.{off} SLCC (-1 to 1): correlation over sequences of the "
        "speech's loudness with the lips' speed, within each speaker and style. That of the recorded faces "
        f"{best}; the nearest to it is best. MTM and SLCC follow arXiv 2503.20308."
    )


def _by_style(per_style: Mapping[str, Mapping[str, float]]) -> str:
    lines = [(style, *(five_digits(row[key]) for key in ERROR_COLUMNS)) for style, row in per_style.items()]
    return table(("style", *ERROR_COLUMNS.values()), lines)


def _beside_published(results: Mapping[str, Any]) -> str:
    lines = [
        (row["host"], row["source"], *(five_digits(row[key]) for key in ("lve", "mve", "fdd")))
        for row in results["published"]
    ]
    for row in results["rows"]:
        if row["semantics"] in ("none", "trained"):
            values = (five_digits(row[key]) for key in ("lve_frames", "mve_frames", "fdd"))
            lines.append((f"{results['model']['name']}: {row['label']}", "this evaluation", *values))
    return table(("host", "source", "LVE", "MVE", "FDD"), lines)
