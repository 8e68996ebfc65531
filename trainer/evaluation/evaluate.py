# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer evaluate vocaset --data VOCASET --out work/evaluation --model work/face/model`

Compares a model folder, run as in the extension, with recorded meshes. The number of frames comes from the audio, never
from the recorded motion. results.md and results.json hold the table, metrics.jsonl has every sequence, and predictions/
saves a second run from predicting again.

Shapes: T animation frames, K channels, N styles, V vertices, E sentence space.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wav2sem_blender.errors import UserError
from wav2sem_blender.files import FolderKind, write_atomically
from wav2sem_blender.pipeline.given_features import SUFFIXES, TEXT_SUFFIXES
from wav2sem_blender.pipeline.infer import SpeechAnimator, style_weights
from wav2sem_blender.pipeline.motion import Motion

from ..datasets.face_data import FaceClip, FaceData
from ..datasets.opening import open_face_data
from ..runs.run import data_hash, git_commit
from .controls import LABELS, PLAIN_LABEL, TRAINED, Semantics, controls, injecting
from .metrics import ErrorTotals, SequenceErrors, sequence_errors
from .protocols import (
    EvaluateChannels,
    EvaluatePrompts,
    EvaluatePronunciation,
    EvaluateSteering,
    EvaluateText,
    EvaluateVertices,
    EvaluateWords,
)
from .regions import Regions, find_regions
from .tables import PUBLISHED_ROWS, vertices_markdown, write_results
from .timing import Lips, LipTotals, chance, find_lips, loudness

SAMPLE_RATE_HZ = 16_000
_FOLDER = FolderKind(
    made_by="an evaluation", names=("results.json", "results.md", "metrics.jsonl", "predictions", "apertures")
)
STILL = {"semantics": "still", "label": "a face that never moves", "unavailable": ""}


def evaluate(
    config: EvaluateVertices
    | EvaluateChannels
    | EvaluatePrompts
    | EvaluateSteering
    | EvaluateWords
    | EvaluateText
    | EvaluatePronunciation,
    data: Path,
    out: Path,
    model: str,
    device: str,
) -> Any:
    """Measure a model; writes results.json (and, on vertices, results.md) and returns what it holds.

    Args:
        config: what to measure.
        data: the data set, prepared speech and motion for `EvaluateChannels`, unpacked prompts, or recordings with
            word times.
        out: folder to write; predictions in it that the same model made are reused.
        model: a model folder, or "default".
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        MissingFileError: there is no model, no data or no vertex lists.
        UserError: the model does not fit the data; the message says what differs.
    """
    _FOLDER.claim(out)
    if isinstance(config, EvaluateChannels):
        from .evaluate_channels import evaluate_channels

        return evaluate_channels(config, data, out, model, device)
    if isinstance(config, EvaluatePrompts):
        from .evaluate_prompts import evaluate_prompts

        return evaluate_prompts(config, data, out, model, device)
    if isinstance(config, EvaluateSteering):
        from .evaluate_steering import evaluate_steering

        return evaluate_steering(config, data, out, model, device)
    if isinstance(config, EvaluateWords):
        from .evaluate_words import evaluate_words

        return evaluate_words(config, data, out, model, device)
    if isinstance(config, EvaluateText):
        from .evaluate_text import evaluate_text

        return evaluate_text(config, data, out, model, device)
    if isinstance(config, EvaluatePronunciation):
        from .evaluate_pronunciation import evaluate_pronunciation

        return evaluate_pronunciation(config, out)
    faces = open_face_data(config.kind, data)
    predictor = Predictor(SpeechAnimator.load(model, device=device), config.styles, out / "predictions", faces.fps)
    _check_fits(predictor, faces)
    clips = _clips(config, faces)
    regions = find_regions(Path(config.regions) if config.regions else data, faces.topology, faces.n_vertices)
    rows = _semantics(config, predictor, faces, clips)
    measured, lines = _measure(predictor, faces, clips, rows, regions)
    write_atomically(out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    results = _described(config, predictor, faces, clips, regions) | {
        "rows": [_row(row, measured.errors[row.name], measured.lips[row.name]) for row in rows]
        + [STILL | measured.still.means() | LipTotals().means()],
        "recorded": measured.recorded.means() | {"chance_mtm_ms": chance(measured.openings, faces.fps)},
        "per_style": _per_style(lines),
    }
    own = measured.errors[TRAINED]
    results["data"] |= {"frames": own.n_frames, "sequences": len(own.sequences)}
    write_results(out, results, vertices_markdown(results))
    return results


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Channel weights under every style, and the mean over utterances of the model's own F_s (or an empty array)."""

    weights_NTK: np.ndarray
    semantic_E: np.ndarray


class Predictor:
    """Animates clips under their styles with any sentence vector, and keeps the channel weights on disk."""

    def __init__(self, animator: SpeechAnimator, styles: Sequence[str], folder: Path, fps: float | None = None) -> None:
        """Empty `styles` take the published choice; a style that the model lacks is a UserError. `fps` is the wanted
        rate of offsets, of which the model's is a multiple; None is the model's own."""
        self.animator, self.engine = injecting(animator)
        self.config, self.basis_KV3 = animator.folder.config, animator.folder.basis()
        self._folder, self._styles = folder, tuple(styles)
        self._every = max(1, round(self.config.host.grid.fps / fps)) if fps else 1
        for style in styles:
            style_weights(style, self.config.styles)

    def styles(self, clip: FaceClip) -> tuple[str, ...]:
        """The requested ones; else the clip's own or its subject's. For an unseen subject nobody's style, if the model
        has one, or all: a released UniTalker has 934 subjects of eight data sets."""
        if self._styles or clip.style:
            return self._styles or (clip.style,)
        known = [style for style in (clip.subject, self.config.host.NOBODYS_STYLE) if style in self.config.styles]
        return (known[0],) if known else self.config.styles

    def given(self, faces: FaceData, clip: FaceClip) -> Path | None:
        """The file of features that the model needs of a clip, if it needs one and there is one."""
        return faces.features_file(clip, TEXT_SUFFIXES if self.config.host.text_width else SUFFIXES)

    def predict(
        self, clip: FaceClip, samples_S: np.ndarray, row: Semantics, features: Path | None = None
    ) -> Prediction:
        """Predict a clip, or read the prediction for this model, audio and vector from disk; `features` as
        `SpeechAnimator`."""
        vector_E = None if row.vectors is None else row.vectors[clip.name]
        styles = self.styles(clip)
        path = self._folder / row.name / f"{clip.name}.npz"
        given = features.read_bytes() if features else b""
        key = self._key(samples_S, styles, row.strength, vector_E, given)
        kept = _read_prediction(path, key)
        if kept is not None:
            return kept
        self.engine.start(vector_E)
        motions = [
            self.animator.animate(samples_S, SAMPLE_RATE_HZ, style, row.strength, features=features) for style in styles
        ]
        made = Prediction(
            weights_NTK=np.stack([motion.weights_TK for motion in motions]),
            semantic_E=np.mean(self.engine.heard or np.zeros((1, 0)), axis=0, dtype=np.float32),
        )
        file = io.BytesIO()
        np.savez(file, key=key, weights_NTK=made.weights_NTK, semantic_E=made.semantic_E)
        write_atomically(path, file.getvalue())
        return made

    def offsets(self, weights_TK: np.ndarray) -> np.ndarray:
        """Vertex displacements (T, V, 3) from the template at the wanted rate."""
        fps, channels = float(self.config.host.grid.fps) / self._every, self.config.channels
        offsets_TV3 = Motion(
            weights_TK=weights_TK[:: self._every], channels=channels, fps=fps, basis_KV3=self.basis_KV3
        ).vertex_offsets()
        assert offsets_TV3 is not None  # _check_fits: there is a basis
        return offsets_TV3

    def _key(
        self, samples_S: np.ndarray, styles: Sequence[str], strength: float, vector_E: np.ndarray | None, given: bytes
    ) -> str:
        described = [self.animator.folder.weights_sha256, self.config.to_json(), list(styles), strength]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        digest.update(samples_S.tobytes() + given)
        digest.update(b"own" if vector_E is None else vector_E.tobytes())
        return digest.hexdigest()


def _read_prediction(path: Path, key: str) -> Prediction | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) == key:
                return Prediction(weights_NTK=file["weights_NTK"], semantic_E=file["semantic_E"])
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # missing or damaged: predict again
    return None


def _clips(config: EvaluateVertices, faces: FaceData) -> list[FaceClip]:
    clips = [clip for clip in faces.clips if clip.split == config.split]
    if not clips:
        splits = ", ".join(sorted({clip.split for clip in faces.clips}))
        raise UserError(
            "{faces}: no clip of the {split} split is on disk, only clips of: {splits}",
            faces=faces.name,
            split=config.split,
            splits=splits,
        )
    return clips[: config.max_clips] if config.max_clips else clips


def _check_fits(predictor: Predictor, faces: FaceData) -> None:
    config, basis_KV3 = predictor.config, predictor.basis_KV3
    if basis_KV3 is None:
        raise UserError(
            "model {model}: has no vertex basis, so its motion cannot be compared with meshes",
            model=config.name,
        )
    fps = config.host.grid.fps
    for what, of_model, of_data, fits in (
        ("vertices", basis_KV3.shape[1], faces.n_vertices, basis_KV3.shape[1] == faces.n_vertices),
        ("frames per second", fps, faces.fps, fps % faces.fps == 0),  # VOCA moves VOCASET at its own 60
        ("unit", config.basis_unit, faces.unit, config.basis_unit == faces.unit),
    ):
        if not fits:
            raise UserError(
                "model {model} does not fit {faces} ({what}: {of_model} against {of_data}); evaluate a model "
                "that was trained on such data",
                model=config.name,
                faces=faces.name,
                what=what,
                of_model=of_model,
                of_data=of_data,
            )


def _semantics(
    config: EvaluateVertices, predictor: Predictor, faces: FaceData, clips: list[FaceClip]
) -> list[Semantics]:
    """The table's rows. The controls need every clip's own F_s, so the model's own row is predicted first."""
    if predictor.config.wav2sem is None:
        return [Semantics(name=TRAINED, label=PLAIN_LABEL)]
    own = Semantics(name=TRAINED, label=LABELS[TRAINED])
    if not config.controls:
        return [own]
    heard = {
        clip.name: predictor.predict(clip, faces.samples(clip), own, predictor.given(faces, clip)).semantic_E
        for clip in tqdm(clips, desc="F_s of every clip", unit="clip")
    }
    texts = {clip.name: clip.text for clip in clips}
    learnt = predictor.config.provenance.get("sentence_space", {})
    text_model = learnt.get("text_model", "") if config.text_model is None else config.text_model
    chosen = config.normalise_target
    normalise = learnt.get("normalise_target", False) if chosen is None else chosen
    return [own, *controls(heard, texts, config.seed, text_model, normalise)]


@dataclass(kw_only=True)
class _Measured:
    """Totals by row, those of a motionless face, and the recorded lips with the curve (T,) of each clip's opening."""

    errors: dict[str, ErrorTotals]
    lips: dict[str, LipTotals]
    still: ErrorTotals = field(default_factory=ErrorTotals)
    recorded: LipTotals = field(default_factory=LipTotals)
    openings: list[np.ndarray] = field(default_factory=list)


def _measure(
    predictor: Predictor, faces: FaceData, clips: list[FaceClip], rows: list[Semantics], regions: Regions
) -> tuple[_Measured, list[dict[str, Any]]]:
    """Totals, and every sequence; only one clip's meshes are in memory."""
    totals = _Measured(errors={row.name: ErrorTotals() for row in rows}, lips={row.name: LipTotals() for row in rows})
    lines: list[dict[str, Any]] = []
    lips: Lips | None = None
    for clip in tqdm(clips, desc="predict and measure", unit="clip"):
        samples_S, template_V3, truth_TV3 = faces.samples(clip), faces.template(clip.subject), faces.vertices(clip)
        against = (truth_TV3, template_V3, regions.lips.indices_R, regions.upper.indices_R)
        lips = lips or find_lips(faces.topology, regions.lips.indices_R, template_V3, truth_TV3, faces.fps)
        heard = loudness(samples_S)
        totals.openings.append(lips.opening(truth_TV3))
        totals.recorded.sequences.append(lips.sequence(clip.subject, heard, truth_TV3, truth_TV3))
        predictor.animator.move_face(template_V3)
        for row in rows:
            if row.unavailable:
                continue
            made = predictor.predict(clip, samples_S, row, predictor.given(faces, clip))
            for style, weights_TK in zip(predictor.styles(clip), made.weights_NTK, strict=True):
                predicted_TV3 = template_V3 + predictor.offsets(weights_TK)
                errors = sequence_errors(predicted_TV3, *against)
                totals.errors[row.name].add(errors)
                timed = lips.sequence(f"{clip.subject} as {style}", heard, predicted_TV3, truth_TV3)
                totals.lips[row.name].sequences.append(timed)
                named = {"clip": clip.name, "style": style, "semantics": row.name}
                longer = len(predicted_TV3) - len(truth_TV3)
                lines.append(
                    named
                    | dataclasses.asdict(errors)
                    | {"predicted_longer_by": longer, "loudness": heard, "lip_intensity": timed.intensity}
                    | {"misaligned_s": timed.misaligned_s}
                )
        still_TV3 = np.broadcast_to(template_V3, (len(predicted_TV3), *template_V3.shape))
        totals.still.add(sequence_errors(still_TV3, *against))
    return totals, lines


def _row(row: Semantics, totals: ErrorTotals, lips: LipTotals) -> dict[str, Any]:
    named = {"semantics": row.name, "label": row.label, "unavailable": row.unavailable}
    return named if row.unavailable else named | totals.means() | lips.means()


def _per_style(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The model's own row, style by style."""
    totals: dict[str, ErrorTotals] = {}
    names = [field.name for field in dataclasses.fields(SequenceErrors)]
    for line in lines:
        if line["semantics"] == TRAINED:
            errors = SequenceErrors(**{name: line[name] for name in names})
            totals.setdefault(line["style"], ErrorTotals()).add(errors)
    return {style: total.means() for style, total in totals.items()}


def _described(
    config: EvaluateVertices, predictor: Predictor, faces: FaceData, clips: list[FaceClip], regions: Regions
) -> dict[str, Any]:
    """What the figures depend on."""
    folder = predictor.animator.folder
    wav2sem = folder.config.wav2sem
    return {
        "config": dataclasses.asdict(config),
        "model": {
            "name": folder.config.name,
            "weights_sha256": folder.weights_sha256,
            "encoder": folder.config.encoder.kind,
            "sentence_dim": wav2sem.target_dim if wav2sem else None,
            "provenance": dict(folder.config.provenance),
        },
        "data": {
            "name": faces.name,
            "split": config.split,
            "clips": len(clips),
            "subjects": len({clip.subject for clip in clips}),
            "styles": sorted({style for clip in clips for style in predictor.styles(clip)}),
            "fps": faces.fps,
            "unit": faces.unit,
            "sha256": data_hash(faces.files()),
            "skipped": dict(faces.skipped),
        },
        "regions": {"lips": str(regions.lips), "upper": str(regions.upper)},
        "published": [dataclasses.asdict(r) for r in PUBLISHED_ROWS if (r.data, r.split) == (faces.name, config.split)],
        "date": date.today().isoformat(),
        "commit": git_commit(),
        "engine": predictor.engine.name,
        "device": predictor.engine.device,
        "notes": predictor.animator.notes,
    }
