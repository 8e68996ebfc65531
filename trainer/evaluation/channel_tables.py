# SPDX-License-Identifier: GPL-3.0-or-later
"""The evaluation of a channel model as Markdown: the tables of the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .conditions import (
    CHILD_FORMANTS,
    CHILD_PITCH,
    CLEAN,
    DIRECT_TO_REVERBERANT_DB,
    N_BABBLERS,
    RT60_S,
    SNR_DB,
    TELEPHONE_HZ,
)
from .mouth_shape import CLASSES, DISTANCES
from .tables import table

CLOSURES = ("recall", "precision", "f1", "auc", "chance", "closed", "silence_residual", "openness")
HEADINGS = {"f1": "F1", "auc": "AUC", "silence_residual": "silence residual"}
NOTHING = "-"
SHAPES_CAPTION = (
    "Legibility: share of 11 kinds of sounds that a lip reader tells, which learnt from film; chance 0.09. By kind: "
    "mean difference in mm from the clip's mean, in brackets the film's: the mouth's width, the gap, the upper lip's "
    "thickness and the lower one's. See `trainer/evaluation/mouth_shape.py`."
)


def channels_markdown(results: Mapping[str, Any]) -> str:
    """The whole report of results.json."""
    model = results["model"]
    parts = [
        f"# Prepared speech and motion, {results['split']} split: {model['name']}",
        f"{model['name']}, weights {model['weights_sha256'][:12]}, semantics at {results['semantic_strength']:g}, "
        f"transcripts: {results['transcripts']}; "
        f"{results['date']}.",
        "## Lip sync",
        _lip_sync(results["lip_sync"]),
        "r: correlation with the filmed lips at lag 0, mean over clips. Best lag in frames; above 0: mouth is early. "
        "Recall of p, b, m; precision of closed frames within speech; chance: the precision of closing anywhere. See "
        "`trainer/evaluation/lipsync.py`.",
    ]
    if len(results["conditions"]) > 1:
        parts += ["## Under harder conditions", _conditions(results["conditions"]), _conditions_caption()]
    if results["levels"]:
        rows = [(place, f"{row['share']:.2f}", f"{row['r']:.2f}") for place, row in results["levels"].items()]
        parts += ["## At other levels", table(("a passage", "moves, of its motion alone", "r with it"), rows)]
    parts += ["## Other languages, synthetic voices", _languages(results["languages"]) or results["languages_note"]]
    if results["shapes"]:
        parts += ["## Shape of the mouth", _shapes(results["shapes"]), *_class_means(results["shapes"]), SHAPES_CAPTION]
    if results["motion"]:
        parts += ["## Against held-out motion", _motion(results["motion"]), _motion_caption(results)]
    return "\n\n".join(parts) + "\n"


def prompts_markdown(results: Mapping[str, Any]) -> str:
    """The whole report of `evaluate_prompts`' results.json."""
    keys = ("recall", "precision", "f1", "auc", "chance", "silence_residual")
    rows = results["languages"].items()
    closures = [
        (name, row["speaker"], str(row["closures"]["clips"]), str(row["closures"]["bilabials"]))
        + tuple(_figure(row["closures"][key]) for key in keys)
        for name, row in rows
    ]
    aligned = [(name, *_alignment(row["alignment"])) for name, row in rows if "alignment" in row]
    parts = [
        f"# Telephone prompts: {results['model']}",
        f"{results['date']}. Definitions: `trainer/evaluation/lipsync.py`; phone times are aligned "
        "(`trainer/evaluation/prompt_times.py`).",
        table(("language", "speaker", "clips", "p, b, m", *_heads(keys)), closures),
        "## How reliable the phone times are",
        table(
            ("language", "prompts", "unknown sounds", "failed", "poor", "score", "wrong transcripts that pass")
            + ("p, b alone", "weakest after onset, ms (quartiles)", "within", "by chance"),
            aligned,
        ),
        "Within: share of p and b for which the weakest sound of the 100 ms around them lies in them or 20 ms away.",
    ]
    return "\n\n".join(parts) + "\n"


def _alignment(figures: Mapping[str, Any]) -> tuple[str, ...]:
    quartiles = figures["dip_ms"]
    return (
        *(str(figures[key]) for key in ("prompts", "unknown_sounds", "failed", "poor")),
        NOTHING if figures["score"] is None else f"{figures['score']:.1f}",
        _figure(figures["wrong_passed"]),
        str(figures["stops"]),
        "{1:.0f} ({0:.0f}, {2:.0f})".format(*quartiles) if quartiles else NOTHING,
        _figure(figures["dip_inside"]),
        _figure(figures["dip_by_chance"]),
    )


def _lip_sync(corpora: Mapping[str, Any]) -> str:
    head = ("recordings", "clips", "r", "best lag", "p, b, m", *_heads(CLOSURES))
    return table(head, [(name, *_cells(scores)) for name, scores in corpora.items()])


def _cells(scores: Mapping[str, Any]) -> list[str]:
    film, closures = scores.get("correlation"), scores.get("closures")
    clips = max(part["clips"] for part in scores.values())
    cells = [str(clips), *((_figure(film["r"]), f"{film['best_lag']:+d}") if film else (NOTHING, NOTHING))]
    if closures is None:
        return cells + [NOTHING] * (1 + len(CLOSURES))
    return [*cells, str(closures["bilabials"]), *(_figure(closures[key]) for key in CLOSURES)]


def _conditions(conditions: Mapping[str, Any]) -> str:
    columns = _condition_columns(conditions[CLEAN])
    head = ("condition", *(f"{HEADINGS.get(key, key)}, {corpus}" for corpus, _, key in columns))
    lines = []
    for condition, corpora in conditions.items():
        cells = []
        for corpus, part, key in columns:
            value, clean = (found[corpus][part][key] for found in (corpora, conditions[CLEAN]))
            cells.append(_figure(value) + (_change(value, clean) if key in ("r", "f1", "auc") else ""))
        lines.append((condition, *cells))
    return table(head, lines)


def _condition_columns(corpora: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """r of every filmed corpus; closures of the pooled corpora without a film, or else of any."""
    films = [(name, "correlation", "r") for name, scores in corpora.items() if "correlation" in scores]
    voices = [name for name, scores in corpora.items() if "closures" in scores][-1:]
    keys = ("f1", "auc", "recall", "precision", "silence_residual")
    return films + [(name, "closures", key) for name in voices for key in keys]


def _change(value: float | None, clean: float | None) -> str:
    """Change against the clean figure, in percent."""
    return f" ({100 * (value / clean - 1):+.0f} %)" if value is not None and clean and value != clean else ""


def _conditions_caption() -> str:
    return (
        f"In brackets: against clean. Noise: pink, {SNR_DB:g} dB below the recording; babble: {N_BABBLERS} other "
        f"held-out voices together, likewise; telephone: {TELEPHONE_HZ[0]} to {TELEPHONE_HZ[1]} Hz, mu-law; room: RT60 "
        f"{RT60_S:g} s, direct sound {DIRECT_TO_REVERBERANT_DB:g} dB above its echoes; pitch: semitones, formants with "
        f"it, constant tempo; child: pitch times {CHILD_PITCH:g}, formants times {CHILD_FORMANTS:g}. Seeded; nothing "
        "of it is used in training's augmentation."
    )


def _languages(languages: Mapping[str, Any]) -> str:
    keys = ("f1", "auc", "recall", "precision", "chance")
    lines = [
        (name, str(part["clips"]), str(part["bilabials"]), *(_figure(part[key]) for key in keys))
        for name, part in ((name, scores["closures"]) for name, scores in languages.items())
    ]
    return table(("language", "clips", "p, b, m", *_heads(keys)), lines) if lines else ""


def _motion(motion: Mapping[str, Mapping[str, float]]) -> str:
    keys = list(next(iter(motion.values())))
    return table(("style", *keys), [(style, *(f"{row[key]:.4g}" for key in keys)) for style, row in motion.items()])


def _motion_caption(results: Mapping[str, Any]) -> str:
    return (
        f"Millimetres on the {results['motion_vertices']} vertices that a channel moves by more than 2 mm, mean over "
        "frames of a clip, then over clips. lve_mm: the largest distance (not squared). rest_mve_mm: the error of a "
        "motionless face. aperture_r: Pearson's r of the lip gap with the fitted one."
    )


def _shapes(shapes: Mapping[str, Any]) -> str:
    head = ("recordings", "clips", "width r", "width sd ratio", "legibility", "of the film")
    keys = ("width_r", "width_sd_ratio", "legibility", "legibility_film")
    return table(
        head, [(name, str(row["clips"]), *(_figure(row[key]) for key in keys)) for name, row in shapes.items()]
    )


def _class_means(shapes: Mapping[str, Any]) -> list[str]:
    return [
        table(
            (name, "n", *DISTANCES),
            [
                (
                    f"{sound}: {' '.join(CLASSES[sound]).lower()}",
                    str(mean["n"]),
                    *(f"{mean[key]:+.1f} ({row['means_film'][sound][key]:+.1f})" for key in DISTANCES),
                )
                for sound, mean in row["means"].items()
            ],
        )
        for name, row in shapes.items()
    ]


def _heads(keys: tuple[str, ...]) -> list[str]:
    return [HEADINGS.get(key, key) for key in keys]


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
