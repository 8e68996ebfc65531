# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer analyze bundled --data ../shared/data --out work/analysis --model default`

Writes OUT/report.html, which shows what a model has learnt and needs no network, its pictures as PNG, and
OUT/analysis.json with every number. The report says what could not be analysed and why.

Shapes: N spoken words, D features, T animation frames, V vertices.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wav2sem_blender.errors import MissingFileError
from wav2sem_blender.files import FolderKind, write_atomically
from wav2sem_blender.pipeline import SpeechAnimator
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ
from wav2sem_blender.pipeline.checkpoint import ModelFolder
from wav2sem_blender.pipeline.engine_torch import choose_device
from wav2sem_blender.pipeline.motion import Motion

from ..motion.shapes import flame_opening
from ..runs.run import git_commit
from .encoders_under_test import (
    PAIR_COLUMNS,
    Given,
    TestedEncoder,
    open_encoders,
    recognise,
    word_distances,
    word_vectors,
)
from .ground_truth import AlignedUtterance, TrueMotion, flame_mesh, read_utterances, true_motions
from .homophones import (
    DISTANCES,
    PAIR_KINDS,
    Token,
    draw_pairs,
    near_homophones,
    pronunciations,
    spoken_words,
    without_synonyms,
)
from .mouth_strips import MouthRegion, Sentence, columns, held_out_sentences, phones_at, sounds
from .pictures import (
    Opening,
    aperture_against_audio,
    error_maps,
    mouths_in_slow_motion,
    near_homophone_map,
    training_curves,
)
from .protocol import Analyze
from .report import Block, Literal, Note, Picture, Section, Table, write_report

_FOLDER = FolderKind(made_by="an analysis", names=("report.html", "analysis.json", "alignments.tsv.gz", "*.png"))
PUBLISHED_DISTANCES = (("wav2vec 2.0", 0.0397, 0.0701), ("HuBERT", 0.2689, 0.2909))
NEAR, RANDOM, SAME = PAIR_KINDS
CAVEAT = (
    "F_s is one vector for a whole utterance. Adding it to every frame changes no difference within the utterance; "
    "between utterances it adds the distance of two sentence vectors, the same for every pair. A larger distance of "
    "near-homophones is therefore no evidence of understanding by itself: read it beside random pairs, pairs of the "
    "same word, and shuffled F_s. Words that sound alike moved apart because of their meaning only if both ratios, to "
    "random pairs and to the same word, rise, and rise more than with shuffled F_s."
)


def analyze(config: Analyze, data: Path, out: Path, model: Sequence[str], device: str) -> Path:
    """Analyse the models (default: the bundled one) and return the report's path.

    Args:
        config: which parts, and how much of each.
        data: prepared speech and motion, LibriSpeech, the development corpora, or face data (`config.faces`).
        out: folder for the report, the pictures and analysis.json.
        model: "default", model folders, runs, transformers encoders, Wav2Sem folders, evaluations.
        device: a torch device, or "auto".

    Raises:
        MissingFileError: a folder is missing.
        UserError: a folder holds nothing that can be analysed, or a model is damaged.
    """
    if not data.is_dir():
        raise MissingFileError("{data}: there is no such folder; check --data", data=data)
    given, device = recognise(model or ["default"]), choose_device(device)
    _FOLDER.claim(out)
    sections, results = [_provenance(given)], dict[str, Any]()
    if {"homophones", "tsne"} & set(config.parts):
        blocks, results["homophones"] = near_homophone_blocks(config, data, out, given, device)
        sections.append(Section(title="Near-homophones", blocks=blocks))
    if {"apertures", "errors"} & set(config.parts):
        blocks, results["lips"] = _known_faces(config, data, out, given, device)
        sections.append(Section(title="Motion", blocks=blocks))
    if "mouths" in config.parts:
        blocks, results["mouths"] = _mouths(config, data, out, given, device)
        sections.append(Section(title="Mouths in slow motion", blocks=blocks))
    if "curves" in config.parts:
        sections.append(Section(title="Training", blocks=_training(out, given)))
    if given.evaluations:
        sections.append(Section(title="Evaluation", blocks=_evaluations(given)))
    settings = json.dumps(dataclasses.asdict(config), indent=1)
    sections.append(Section(title="Settings", blocks=[f"Commit {git_commit()}.", Literal(text=settings)]))
    facts = {"config": dataclasses.asdict(config), "models": list(model), "commit": git_commit(), **results}
    write_atomically(out / "analysis.json", (json.dumps(facts, indent=1) + "\n").encode())
    report = write_report(out / "report.html", "Analysis of " + ", ".join(_names(given)), sections)
    print(report)
    return report


def _names(given: Given) -> list[str]:
    return list(dict.fromkeys([*given.models, *given.encoders, *given.semantics, *given.runs, *given.evaluations]))


def _provenance(given: Given) -> Section:
    rows: list[list[str]] = []
    for name, path in given.models.items():
        folder = ModelFolder.open(path)
        made = ", ".join(f"{key} {value}" for key, value in folder.config.provenance.items())
        semantics = "none" if folder.config.wav2sem is None else f"{folder.config.wav2sem.target_dim} wide"
        encoder = f"{folder.config.encoder.kind}, Wav2Sem {semantics}"
        rows.append(
            [name, encoder, folder.weights_sha256[:16], folder.config.license or "not stated", made or "not stated"]
        )
    for name, path in given.runs.items():
        described = json.loads((path / "run.json").read_text(encoding="utf-8"))
        made = ", ".join(f"{key} {described[key]}" for key in ("experiment", "commit", "torch") if key in described)
        rows.append(
            [name, f"run of {described.get('verb', 'an unnamed verb')}", "–", "not stated", made or "not stated"]
        )
    for kind, paths in (("encoder", given.encoders), ("Wav2Sem", given.semantics)):
        rows += [
            [name, kind, "–", "not stated", path.resolve().name]
            for name, path in paths.items()
            if name not in given.runs
        ]
    header = ["model", "what it is", "weights (sha256)", "licence", "made by"]
    return Section(title="Models", blocks=[Table(caption="What was analysed", header=header, rows=rows)])


def near_homophone_blocks(
    config: Analyze, data: Path, out: Path, given: Given, device: str, shown: Sequence[str] = DISTANCES
) -> tuple[list[Block], list[dict[str, Any]]]:
    """How far apart words that sound alike are in the given encoders: a report's blocks, with tables of the `shown`
    distances, and every figure."""
    tested_encoders, notes = open_encoders(given, device)
    blocks: list[Block] = [Note(text=note) for note in notes]
    if not tested_encoders:
        return [*blocks, Note(text="Left out: none of the given folders holds a speech encoder.")], []
    try:
        utterances = read_utterances(data, config, out)
    except MissingFileError as error:
        return [*blocks, Note(text=f"Left out, as there is no transcribed speech ({error}).")], []
    tokens, words = _spoken(utterances, config)
    near_P2 = near_homophones([pronunciations()[word][0] for word in words], config.max_distance)
    kept_P2 = without_synonyms(near_P2, words, config.max_similarity)
    draws = [draw_pairs(tokens, kept_P2, words, config.words, config.pairs, seed) for seed in config.seeds]
    heard = f"{len(utterances)} utterances with phone times of {', '.join(config.corpora) or 'all corpora'}"
    if any(not len(pairs) for draw in draws for pairs in draw.values()):
        return [*blocks, Note(text=f"Left out: {heard} hold too few near-homophones.")], []
    blocks += [_how(config, utterances, tokens, words, near_P2, kept_P2, draws), CAVEAT]
    blocks.append(
        Table(
            caption="Published (Wav2Sem, CVPR 2025); no unit or pair list was released, MSE per dimension is our guess",
            header=["encoder", "without Wav2Sem", "with Wav2Sem"],
            rows=[list(row) for row in PUBLISHED_DISTANCES],
        )
    )
    rows: list[dict[str, Any]] = []
    if "homophones" in config.parts:
        for tested in tested_encoders:
            some = word_distances(tested, utterances, tokens, draws, config, device)
            blocks += _distance_tables(tested, some, shown)
            rows += some
    if "tsne" in config.parts:
        blocks += [_tsne(tested, utterances, tokens, draws[0], config, out, device) for tested in tested_encoders]
    return blocks, rows


def _spoken(utterances: Sequence[AlignedUtterance], config: Analyze) -> tuple[list[Token], list[str]]:
    """Every spoken word that is long enough, and the vocabulary."""
    sentences = {text: number for number, text in enumerate(sorted({utterance.text for utterance in utterances}))}
    tokens = [
        dataclasses.replace(token, utterance=number, sentence=sentences[utterance.text])
        for number, utterance in enumerate(utterances)
        for token in spoken_words(utterance.text, utterance.phones, pronunciations())
        if round(token.end_s - token.start_s, 3) >= config.min_word_s
    ]
    return tokens, sorted({token.word for token in tokens})


def _how(
    config: Analyze,
    utterances: Sequence[AlignedUtterance],
    tokens: Sequence[Token],
    words: Sequence[str],
    near_P2: np.ndarray,
    kept_P2: np.ndarray,
    draws: Sequence[Mapping[str, np.ndarray]],
) -> str:
    n_train = sum(utterance.split == "train" for utterance in utterances)
    counts = "; ".join(f"{kind} {' / '.join(str(len(draw[kind])) for draw in draws)}" for kind in PAIR_KINDS)
    n_distinct = len({tuple(sorted((tokens[a].word, tokens[b].word))) for a, b in draws[0][NEAR].tolist()})
    return (
        f"{len(tokens)} spoken words of {len(words)} kinds in {len(utterances)} utterances of "
        f"{', '.join(sorted({utterance.corpus for utterance in utterances}))} ({n_train} of the utterances belong to "
        f"the training split); at most {config.words} words drawn for each of the seeds "
        f"{', '.join(map(str, config.seeds))}. Near-homophones: 0 < phone edit distance / longer word <= "
        f"{config.max_distance} with the CMU dictionary's first pronunciation, {len(near_P2)} word pairs, of which "
        f"{len(near_P2) - len(kept_P2)} were left out as synonyms (cosine of MiniLM's vectors of the two words above "
        f"{config.max_similarity}; WordNet was not used). Every word is heard in at least two sentences, and the two "
        f"examples of a pair come from different ones: {n_distinct} of the word pairs are in the first draw. Pairs of "
        f"examples for each seed: {counts}. Mean over time of the last layer at 50 Hz. Audio slicing: the word's own "
        "sound goes through both encoders. Feature slicing: frames are cut from the utterance's features, F_s is the "
        "utterance's."
    )


def _distance_tables(tested: TestedEncoder, rows: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> list[Block]:
    units = {"mse": "mean squared difference per dimension", "euclidean": "Euclidean distance", "cosine": "1 - cosine"}
    blocks: list[Block] = [
        Table(
            caption=f"{tested.name} ({tested.kind}; {tested.note}): {units[distance]}, mean ± spread over seeds",
            header=["slicing", "features", *PAIR_COLUMNS],
            rows=[
                [row["slicing"], row["variant"], *(f"{row[c]['mean']:.4g} ± {row[c]['sd']:.1g}" for c in PAIR_COLUMNS)]
                for row in rows
                if row["distance"] == distance
            ],
        )
        for distance in shown
    ]
    return [*blocks, *_verdicts(tested, rows)]


def _verdicts(tested: TestedEncoder, rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    by = {(row["slicing"], row["variant"]): row for row in rows if row["distance"] == "mse"}
    sentences: list[Block] = []
    for slicing in dict.fromkeys(row["slicing"] for row in rows):
        if (slicing, "with Wav2Sem") not in by:
            continue
        before, after, shuffled = (by[slicing, v] for v in ("without Wav2Sem", "with Wav2Sem", "shuffled F_s"))
        gains = [after[kind]["mean"] - before[kind]["mean"] for kind in PAIR_KINDS]
        ratios = {
            name: f"{before[name]['mean']:.3f} without, {after[name]['mean']:.3f} with, "
            f"{shuffled[name]['mean']:.3f} with shuffled F_s"
            for name in ("near / random", "near / same word")
        }
        sentences.append(
            f"{tested.name}, {slicing} slicing: Wav2Sem adds {gains[0]:.4g} to the MSE of near-homophones, "
            f"{gains[1]:.4g} to that of random pairs and {gains[2]:.4g} to that of the same word. Near to random: "
            f"{ratios['near / random']}. Near to the same word: {ratios['near / same word']}."
        )
    return sentences


def _tsne(
    tested: TestedEncoder,
    utterances: Sequence[AlignedUtterance],
    tokens: Sequence[Token],
    draw: Mapping[str, np.ndarray],
    config: Analyze,
    out: Path,
    device: str,
) -> Block:
    examples: dict[str, list[int]] = {}
    for i, token in enumerate(tokens):
        examples.setdefault(token.word, []).append(i)
    near = {tuple(sorted((tokens[a].word, tokens[b].word))) for a, b in draw[NEAR].tolist()}
    pairs: list[tuple[str, str]] = []
    for first, second in sorted(near, key=lambda pair: -min(len(examples[word]) for word in pair)):
        if not {first, second} & {word for pair in pairs for word in pair} and len(pairs) < config.tsne_pairs:
            pairs.append((first, second))
    chosen = [i for pair in pairs for word in pair for i in examples[word][: config.tsne_tokens]]
    features_ND, semantic_ND = word_vectors(tested, utterances, [tokens[i] for i in chosen], "audio", device)
    panels = {f"{tested.name}: features alone": features_ND}
    if semantic_ND is not None:
        panels[f"{tested.name}: with F_s"] = features_ND + semantic_ND
    path = out / f"tsne_{_file_name(tested.name)}.png"
    near_homophone_map(path, panels, [tokens[i].word for i in chosen], pairs)
    caption = (
        "near-homophones that are spoken most often, audio slicing; one colour a pair, disc and cross its two words"
    )
    return Picture(path=path, caption=f"t-SNE of {tested.name}: {caption}. Each panel is its own projection.")


def _known_faces(
    config: Analyze, data: Path, out: Path, given: Given, device: str
) -> tuple[list[Block], list[dict[str, Any]]]:
    if not given.models:
        return [Note(text="Left out: none of the given folders holds a model that animates.")], []
    known, whose = true_motions(data, config)
    if not known:
        return [Note(text=f"Left out: no clip with known motion. {whose}")], []
    animators = {name: SpeechAnimator.load(path, device=device) for name, path in given.models.items()}
    blocks: list[Block] = [
        f"Clips with known motion: {whose}. A model without the speaker's style speaks in its first."
    ]
    rows: list[dict[str, Any]] = []
    totals: dict[str, list[np.ndarray]] = {}
    for face in tqdm(known, desc="animate", unit="clip"):
        moved = {name: _animate(animator, face.samples_S, face.style) for name, animator in animators.items()}
        if "apertures" in config.parts:
            block, some = _apertures(face, moved, animators, out)
            blocks.append(block)
            rows += some
        if "errors" in config.parts:
            _add_errors(face, moved, totals)
    if "errors" in config.parts:
        blocks.append(_errors(known, totals, animators, data, out))
    if rows:
        table_rows = [[row["clip"], row["model"], row["r"], row["mean_error_mm"]] for row in rows]
        header = ["clip", "model", "r", "mean error (mm)"]
        blocks.append(
            Table(caption="Inner-lip opening against the true one, no time shift", header=header, rows=table_rows)
        )
    return blocks, rows


def _animate(animator: SpeechAnimator, samples_S: np.ndarray, speaker: str) -> Motion:
    style = speaker if speaker in animator.folder.config.styles else 0
    return animator.animate(samples_S, SAMPLE_RATE_HZ, style)


def _moves_flame(animator: SpeechAnimator) -> bool:
    config = animator.folder.config
    return config.topology == "flame" and config.basis_unit == "m"


def _apertures(
    face: TrueMotion, moved: Mapping[str, Motion], animators: Mapping[str, SpeechAnimator], out: Path
) -> tuple[Block, list[dict[str, Any]]]:
    curves: list[Opening] = []
    true: Opening | None = None
    for name, motion in moved.items():
        offsets_TV3 = motion.vertex_offsets()
        if offsets_TV3 is None or not _moves_flame(animators[name]):
            continue
        curves.append(Opening(name=name, opening_mm_T=1000 * flame_opening(offsets_TV3), fps=motion.fps))
        true_TV3 = face.offsets(motion)
        if face.opening_mm_T is not None:
            true = Opening(name="true", opening_mm_T=face.opening_mm_T, fps=face.fps)
        elif true_TV3 is not None:
            true = Opening(name="true", opening_mm_T=1000 * flame_opening(true_TV3), fps=face.fps)
    if not curves:
        return Note(text=f"{face.name}: no aperture: the lips' vertices are known only for FLAME in metres."), []
    path = out / f"aperture_{_file_name(face.name)}.png"
    aperture_against_audio(path, face.name, face.samples_S, [*curves, *([true] if true else [])], face.phones)
    known = "black: the true motion" if true else "the true motion is not known"
    rows = [{"clip": face.name, "model": curve.name, **_agreement(curve, true)} for curve in curves] if true else []
    return Picture(path=path, caption=f"Sound and lips of {face.name}; {known}."), rows


def _agreement(curve: Opening, true: Opening) -> dict[str, float]:
    """Pearson's r and the mean absolute difference, read at the true motion's times."""
    end_s = min(len(curve.opening_mm_T) / curve.fps, len(true.opening_mm_T) / true.fps)
    times_s = np.arange(int(end_s * true.fps)) / true.fps
    said_T = np.interp(times_s, np.arange(len(curve.opening_mm_T)) / curve.fps, curve.opening_mm_T)
    true_T = true.opening_mm_T[: len(times_s)]
    still = min(said_T.std(), true_T.std()) < 1e-9
    r = float("nan") if still else float(np.corrcoef(said_T, true_T)[0, 1])
    return {"r": r, "mean_error_mm": float(np.abs(said_T - true_T).mean())}


def _add_errors(face: TrueMotion, moved: Mapping[str, Motion], totals: dict[str, list[np.ndarray]]) -> None:
    for name, motion in moved.items():
        true_TV3, offsets_TV3 = face.offsets(motion), motion.vertex_offsets()
        if true_TV3 is None or offsets_TV3 is None or true_TV3.shape[1] != offsets_TV3.shape[1]:
            continue
        n_frames = min(len(true_TV3), len(offsets_TV3))
        error_TV = np.linalg.norm(offsets_TV3[:n_frames] - true_TV3[:n_frames], axis=-1)
        totals.setdefault(name, []).append(error_TV.mean(0))
        if name == next(iter(moved)):
            totals.setdefault("a face that never moves", []).append(
                np.linalg.norm(true_TV3[:n_frames], axis=-1).mean(0)
            )


def _errors(
    known: Sequence[TrueMotion],
    totals: Mapping[str, list[np.ndarray]],
    animators: Mapping[str, SpeechAnimator],
    data: Path,
    out: Path,
) -> Block:
    if not totals:
        return Note(text="No error map: no clip has the whole face's true motion on a model's mesh.")
    mesh = flame_mesh(data)
    n_vertices = len(next(iter(totals.values()))[0])
    rest_V3 = next((face.rest_V3 for face in known if face.rest_V3 is not None), mesh[0] if mesh else None)
    faces_F3 = mesh[1] if mesh is not None and len(mesh[0]) == n_vertices else None
    if rest_V3 is None or len(rest_V3) != n_vertices:
        return Note(text="No error map: the rest face is not in the data (flame2023_open/flame2023_open.npz).")
    metres = all(animator.folder.config.basis_unit == "m" for animator in animators.values())
    maps = {name: (1000 if metres else 1) * np.mean(errors, axis=0) for name, errors in totals.items()}
    unit = "mm" if metres else "square roots of the face's area"
    path = error_maps(out / "error_map.png", maps, rest_V3, faces_F3, unit)
    n_clips = max(len(errors) for errors in totals.values())
    drawn = "" if faces_F3 is not None else " The triangles are not in the data, so vertices are dots."
    return Picture(path=path, caption=f"Mean distance of every vertex from the true one over {n_clips} clips.{drawn}")


def _mouths(
    config: Analyze, data: Path, out: Path, given: Given, device: str
) -> tuple[list[Block], list[dict[str, Any]]]:
    animators = {name: SpeechAnimator.load(path, device=device) for name, path in given.models.items()}
    strange = [name for name, animator in animators.items() if not _moves_flame(animator)]
    blocks: list[Block] = [Note(text=f"{name} is left out: it does not move FLAME in metres.") for name in strange]
    animators = {name: animator for name, animator in animators.items() if name not in strange}
    if not animators:
        return [*blocks, Note(text="Left out: none of the given folders holds a model that animates FLAME.")], []
    try:
        region, sentences = MouthRegion(data), held_out_sentences(data, config.sentences, config.voices)
    except MissingFileError as error:
        return [*blocks, Note(text=f"Left out: {error}.")], []
    if not sentences:
        return [*blocks, Note(text="Left out: no held-out sentence has all of the sounds needed.")], []
    blocks.append(
        "Consecutive animation frames (30 a second) of held-out sentences. Flat lips are a filmed speaker's, tracked, "
        "without the head's pose, scaled to FLAME; shaded lips are FLAME's, moved by the model. The sound itself is in "
        "the framed columns. Each face is centred on its own mouth at rest; for a film, that is the median of the "
        "fifth of its frames with the most closed lips. FLAME has no teeth."
    )
    rows: list[dict[str, Any]] = []
    for sentence in tqdm(sentences, desc="mouths", unit="sentence"):
        moved = {name: _animate(animator, sentence.samples_S, sentence.speaker) for name, animator in animators.items()}
        pictures, some = _mouth_pictures(sentence, region, moved, out)
        blocks += pictures
        rows += some
    header = ["clip", "sound", "lips of", "least opening", "most opening", "least width", "most width"]
    cells = [list(row.values()) for row in rows]
    blocks.append(Table(caption="Lips during the framed sounds, mm above rest", header=header, rows=cells))
    return blocks, rows


def _mouth_pictures(
    sentence: Sentence, region: MouthRegion, moved: Mapping[str, Motion], out: Path
) -> tuple[list[Block], list[dict[str, Any]]]:
    blocks: list[Block] = []
    rows: list[dict[str, Any]] = []
    for kind, sound in sounds(sentence.phones).items():
        times_F, sounding_F = columns(sound)
        mouths = [region.moved(name, motion, times_F) for name, motion in moved.items()]
        if sentence.track:
            mouths.insert(0, region.filmed("filmed", sentence.track, times_F))
        path = out / f"mouths_{_file_name(sentence.name)}_{_file_name(kind.replace(', ', ''))}.png"
        title = f"{kind}: {sound[0]} of {sentence.name}"
        mouths_in_slow_motion(path, title, mouths, phones_at(sentence.phones, times_F), times_F, sounding_F)
        said = f"“{sentence.text}”, spoken by {sentence.speaker}"
        blocks.append(
            Picture(path=path, caption=f"{kind}: {sound[0]} at {sound[1]:.2f} to {sound[2]:.2f} s in {said}.")
        )
        for mouth in mouths:
            values = (mouth.opening_mm_F[sounding_F], mouth.width_mm_F[sounding_F])
            extremes = [float(extreme(value)) for value in values for extreme in (np.min, np.max)]
            named = zip(("opening_min", "opening_max", "width_min", "width_max"), extremes, strict=True)
            rows.append({"clip": sentence.name, "sound": f"{kind}: {sound[0]}", "face": mouth.name, **dict(named)})
    return blocks, rows


def _training(out: Path, given: Given) -> list[Block]:
    if not given.runs:
        return [Note(text="Left out: no run folder was given with --model.")]
    runs = {
        name: [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for name, path in given.runs.items()
        if (path / "metrics.jsonl").is_file()
    }
    blocks: list[Block] = [Note(text=f"{name}: no metrics.jsonl yet.") for name in given.runs.keys() - runs.keys()]
    if any(runs.values()):
        path = training_curves(out / "training.png", runs)
        blocks.append(Picture(path=path, caption=f"Training of {', '.join(runs)}, from metrics.jsonl."))
    return blocks


def _evaluations(given: Given) -> list[Block]:
    blocks: list[Block] = []
    for name, path in given.evaluations.items():
        readable = path / "results.md" if (path / "results.md").is_file() else path / "results.json"
        blocks += [f"{name}:", Literal(text=readable.read_text(encoding="utf-8"))]
    return blocks


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
