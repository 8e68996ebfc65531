# SPDX-License-Identifier: GPL-3.0-or-later
"""An evaluation as Markdown: our rows with everything that they depend on, beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = {
    "lve_frames": "LVE, frames pooled",
    "lve_sequences": "LVE, mean of sequences",
    "mve_frames": "MVE, frames pooled",
    "mve_sequences": "MVE, mean of sequences",
    "fdd": "FDD, signed",
    "fdd_abs": "FDD, magnitude",
}
UNITS = {"m": ("m²", "m"), "sqrt_area": ("√area² (the face's area is 1)", "√area")}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of another evaluation; None where it states nothing, or nothing that can be trusted."""

    data: str
    split: str
    host: str
    source: str
    lve: float | None = None
    mve: float | None = None
    fdd: float | None = None


_WAV2SEM = "Wav2Sem, CVPR 2025"
PUBLISHED = (
    Published(data="vocaset", split="test", host="FaceFormer", source=_WAV2SEM, lve=4.1090e-5),
    Published(data="vocaset", split="test", host="FaceFormer + Wav2Sem", source=_WAV2SEM, lve=3.9891e-5),
    Published(data="vocaset", split="test", host="UniTalker", source=_WAV2SEM, lve=3.54e-5),
    Published(data="vocaset", split="test", host="UniTalker", source="UniTalker's own (its issue 19)", lve=8.14e-6),
    Published(data="biwi", split="test", host="FaceFormer", source=_WAV2SEM, lve=4.9847e-4),
    Published(data="biwi", split="test", host="FaceFormer + Wav2Sem", source=_WAV2SEM, lve=4.9571e-4),
    Published(
        data="biwi", split="test", host="CodeTalker", source="CodeTalker, CVPR 2023", lve=4.7914e-4, fdd=4.1170e-5
    ),
    Published(data="biwi", split="test", host="FaceDiffuser", source="FaceDiffuser, MIG 2023", mve=6.8088e-3),
)
CAVEATS = (
    "The published figures are not known to follow one protocol: neither region lists, nor pooling, nor the styles of "
    "unseen subjects are stated for VOCASET, and the released code has no lip list for it at all.",
    "The hosts' own BIWI rows equal those of earlier papers, so they were copied; only the rows with Wav2Sem are new.",
    "Published MVE on VOCASET (about 5.16e-5) cannot be metres beside an LVE of 4.11e-5 m², whose root is 6.4 mm: its "
    "unit is not recoverable, and it is left out here. UniTalker scales BIWI by 0.2, which makes its LVE 0.04 of ours.",
    "CodeTalker's author calls figures on VOCASET's test set unsuitable: its subjects have styles that no training "
    "subject has.",
    "“No semantics” switches F_s off in a model that was trained with it. It is not a model trained without Wav2Sem: "
    "for that, evaluate one.",
)


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report of results.json."""
    model, data = results["model"], results["data"]
    title = f"# {data['name']}, {data['split']} split: {model['name']}"
    parts = [title, _facts(results), _own_table(results["rows"]), _definitions(data["unit"]), _by_style(results)]
    parts += [_published_table(results), "## Read this before comparing", "\n".join(f"- {text}" for text in CAVEATS)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(results: Mapping[str, Any]) -> str:
    model, data, regions = results["model"], results["data"], results["regions"]
    facts = {
        "model": f"{model['name']}, weights {model['weights_sha256'][:12]}, {model['encoder']} encoder, "
        + (f"Wav2Sem into {model['sentence_dim']} dimensions" if model["sentence_dim"] else "no Wav2Sem"),
        "data": f"{data['name']}, {data['split']} split, {data['clips']} clips of {data['subjects']} subjects, "
        f"{data['fps']} fps, data hash {data['sha256'][:12]}" + _skipped(data["skipped"]),
        "sequences": f"{data['sequences']} of {data['clips']} clips, under {_styles_in_words(data)}; {data['frames']} "
        "frames, counted from the audio and cut to the common length",
        "lips (LVE)": regions["lips"],
        "upper face (FDD)": regions["upper"],
        "unit": f"LVE and FDD {UNITS[data['unit']][0]}, MVE {UNITS[data['unit']][1]}",
        "made": f"{results['date']}, commit {results['commit']}, {results['engine']} on {results['device']}",
    }
    if results["notes"]:
        facts["notes"] = "; ".join(results["notes"])
    return _table(("", ""), [(name, text) for name, text in facts.items()])


def _skipped(skipped: Mapping[str, int]) -> str:
    return "".join(f"; {count} x {reason}" for reason, count in skipped.items() if count)


def _styles_in_words(data: Mapping[str, Any]) -> str:
    if data["sequences"] == data["clips"]:
        return "one style each"
    return f"the styles {', '.join(data['styles'])}"


def _own_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        if row["unavailable"]:
            lines.append((row["label"], f"not measured: {row['unavailable']}", *("" for _ in list(COLUMNS)[1:])))
        else:
            lines.append((row["label"], *(_number(row[key]) for key in COLUMNS)))
    return "## Errors\n\n" + _table(("semantics", *COLUMNS.values()), lines)


def _definitions(unit: str) -> str:
    squared, plain = UNITS[unit]
    return (
        f"LVE ({squared}): mean over frames of the largest squared distance among the lip vertices. MVE ({plain}): "
        f"mean distance over frames and all vertices. FDD ({squared}): per sequence, mean over the upper face's "
        "vertices of the standard deviation over time of the squared displacement from the template, truth minus "
        "prediction; the mean over sequences (signed), and the mean of its magnitude."
    )


def _by_style(results: Mapping[str, Any]) -> str:
    if len(results["per_style"]) < 2:
        return ""
    lines = [(style, *(_number(row[key]) for key in COLUMNS)) for style, row in results["per_style"].items()]
    return f"## By style ({results['rows'][0]['label']})\n\n" + _table(("style", *COLUMNS.values()), lines)


def _published_table(results: Mapping[str, Any]) -> str:
    rows = results["published"]
    if not rows:
        return ""
    lines = [(r["host"], r["source"], *(_number(r[key]) for key in ("lve", "mve", "fdd"))) for r in rows]
    for row in results["rows"][:2]:
        if not row["unavailable"]:
            values = (_number(row[key]) for key in ("lve_frames", "mve_frames", "fdd"))
            lines.append((f"{results['model']['name']}: {row['label']}", "this evaluation", *values))
    return "## Beside the published figures\n\n" + _table(("host", "source", "LVE", "MVE", "FDD"), lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4e}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
