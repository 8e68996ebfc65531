# SPDX-License-Identifier: GPL-3.0-or-later
"""HuBERT's labels, which need no transcripts: k-means clusters of Kaldi MFCC, or of an earlier encoder's hidden states.

One process computes them once, into the run's folder, where a resumed run finds them:

    labels/labels.npy     uint16 (L,), every recording's labels end to end, one for each encoder frame (50 Hz)
    labels/index.json     their recipe (another recipe makes new labels), and the recordings
    labels/centroids.npy  float32 (K, D)

Shapes: S samples, M MFCC frames (100 Hz), L encoder frames (50 Hz), N frames of many recordings, D features,
K clusters.
Source: Hsu et al., HuBERT (2021), section IV, and fairseq's examples/hubert/simple_kmeans.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from wav2sem_blender.errors import UserError
from wav2sem_blender.files import replaced_folder
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ
from wav2sem_blender.pipeline.frame_timing import HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES, encoder_frames
from wav2sem_blender.pipeline.nn.encoders import WaveformBackbone, load_backbone
from wav2sem_blender.pipeline.sound_file import file_sha256

from ..datasets.librispeech import Utterance
from ..runs.run import Run, data_hash, read_run
from ..runs.sharing import divide
from ..speech.batches import frame_times_s, normalise
from ..speech.phones import frame_labels
from ..speech.recordings import Recordings, open_recordings
from .recipes import MaskedClusters

MFCC_FRAMES_PER_LABEL = 2
FILES = ("centroids.npy", "labels.npy", "index.json")
# Encoders get recordings in pieces of this length, as attention over an hour needs too much memory.
PIECE_SAMPLES = 5000 * HOP_SAMPLES
Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class LabelledRecording:
    """One recording: its path below the data's root, its length, and the position of its first label."""

    path: str
    speaker: str
    split: str
    n_samples: int
    first: int


class LabelledSpeech:
    """Recordings with a label for every encoder frame, opened for reading."""

    def __init__(self, source: Recordings, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.source = source
        self.skipped: Mapping[str, int] = index["skipped"]
        self.recordings = [LabelledRecording(*row) for row in index["recordings"]]
        self._labels_L = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)

    def samples(self, recording: LabelledRecording, first: int = 0, n_samples: int = -1) -> np.ndarray:
        """float32 (S,) in [-1, 1), from sample `first` on."""
        return self.source.samples(recording.path, first, n_samples)

    def labels(self, recording: LabelledRecording, first: int = 0, n_frames: int | None = None) -> np.ndarray:
        """int64 (L,), from encoder frame `first` on."""
        end = encoder_frames(recording.n_samples) if n_frames is None else first + n_frames
        return self._labels_L[recording.first + first : recording.first + end].astype(np.int64)


def mfcc(samples_S: np.ndarray) -> np.ndarray:
    """Kaldi's MFCC with their first and second derivatives, float32 (M, 39): 25 ms windows every 10 ms.

    Frame 2 l covers exactly the samples that encoder frame l covers.
    """
    import torchaudio.compliance.kaldi
    import torchaudio.functional

    waveform = torch.from_numpy(samples_S)[None]
    base = torchaudio.compliance.kaldi.mfcc(waveform, sample_frequency=SAMPLE_RATE_HZ, use_energy=False).T
    delta = torchaudio.functional.compute_deltas(base)
    return torch.cat([base, delta, torchaudio.functional.compute_deltas(delta)]).T.numpy()


@torch.no_grad()
def hidden_states(backbone: WaveformBackbone, layer: int, normalised: bool, samples_S: np.ndarray) -> np.ndarray:
    """The output of layer `layer` (1 is the first) of an encoder in eval mode, float32 (L, D)."""
    samples_S = normalise(samples_S) if normalised else samples_S
    overlap = RECEPTIVE_FIELD_SAMPLES - HOP_SAMPLES
    parts = []
    for start in range(0, encoder_frames(len(samples_S)) * HOP_SAMPLES, PIECE_SAMPLES):
        piece = torch.from_numpy(samples_S[start : start + PIECE_SAMPLES + overlap])[None].to(backbone.device)
        states = backbone(piece, output_hidden_states=True).hidden_states
        assert states is not None
        parts.append(states[layer][0].float().cpu().numpy())
    return np.concatenate(parts)


def fit_centroids(features_ND: np.ndarray, settings: MaskedClusters, seed: int) -> np.ndarray:
    """Centroids float32 (K, D) by scikit-learn's MiniBatchKMeans with HuBERT's published parameters.

    Raises:
        UserError: there are fewer frames than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    if len(features_ND) < settings.n_clusters:
        raise UserError(
            "{n_frames} frames of speech cannot make {n_clusters} clusters; add recordings or raise the "
            "experiment's fit_share",
            n_frames=len(features_ND),
            n_clusters=settings.n_clusters,
        )
    kmeans = MiniBatchKMeans(
        settings.n_clusters,
        init="k-means++",
        max_iter=settings.kmeans_max_iter,
        batch_size=settings.kmeans_batch,
        compute_labels=False,
        tol=0.0,
        max_no_improvement=settings.kmeans_patience,
        n_init=settings.kmeans_starts,
        reassignment_ratio=0.0,
        random_state=seed,
    )
    return kmeans.fit(features_ND).cluster_centers_.astype(np.float32)


def nearest(features_ND: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
    """Index uint16 (N,) of the nearest centroid."""
    return ((centroids_KD**2).sum(1) - 2 * features_ND @ centroids_KD.T).argmin(1).astype(np.uint16)


def labelled_speech(settings: MaskedClusters, data: Path, run: Run, earlier: Path | None) -> LabelledSpeech:
    """The labels of every recording below `data`: found in the run's folder, or made by one of its processes.

    Args:
        earlier: the pretrain-hubert run whose hidden states are clustered, when the experiment says "features".

    Raises:
        MissingFileError: no recordings, or `earlier` is no finished run.
        UserError: `earlier` is missing, superfluous or of another kind.
    """
    source = open_recordings(data)
    recipe = _recipe(settings, source.files(), run.config.seed, earlier)
    run.describe(data_sha256=recipe["data_sha256"])
    folder = run.folder / "labels"
    divide(
        [folder],
        make=lambda folder: _write(folder, recipe, settings, source, _features(settings, earlier, run.device)),
        is_done=lambda folder: _recipe_of(folder) == recipe,
    )
    speech = LabelledSpeech(source, folder)
    run.describe(recordings=len(speech.recordings), skipped=dict(speech.skipped))
    return speech


def _recipe(settings: MaskedClusters, files: Iterable[Path], seed: int, earlier: Path | None) -> dict[str, Any]:
    """Everything that the labels depend on, as plain JSON."""
    if (settings.source == "features") != (earlier is not None):
        if earlier is None:
            raise UserError(
                "this experiment clusters an earlier encoder's hidden states; "
                "name its pretrain-hubert run with --hubert"
            )
        raise UserError(
            "--hubert {earlier}: this experiment clusters MFCC and needs no earlier run; leave --hubert out",
            earlier=earlier,
        )
    names = [field.name for field in dataclasses.fields(settings)]
    relevant = [name for name in names if name in ("source", "n_clusters", "layer", "fit_share") or "kmeans" in name]
    recipe = {name: getattr(settings, name) for name in relevant} | {"seed": seed, "data_sha256": data_hash(files)}
    if earlier is not None:
        task = read_run(earlier, "encoder.pt")["config"]["task"]
        if "source" not in task:
            raise UserError(
                "--hubert {earlier}: was taught phones at {task} Hz; name a run of MFCC clusters instead",
                earlier=earlier,
                task=task["fps"],
            )
        read_run(earlier, "encoder/model.safetensors")
        recipe["encoder_sha256"] = file_sha256(earlier / "encoder" / "model.safetensors")
    return recipe


def _recipe_of(folder: Path) -> dict[str, Any] | None:
    path = folder / "index.json"
    return json.loads(path.read_text(encoding="utf-8"))["recipe"] if path.is_file() else None


def _features(settings: MaskedClusters, earlier: Path | None, device: torch.device) -> Features:
    """What is clustered."""
    if earlier is None:
        return mfcc
    task = read_run(earlier)["config"]["task"]
    backbone = load_backbone(str(earlier / "encoder"), "hubert").eval()
    torch.nn.Module.to(backbone, device)  # transformers' own `to` has no types
    if not 1 <= settings.layer <= backbone.config.num_hidden_layers:
        raise UserError(
            "--hubert {earlier}: has {num_hidden_layers} layers, not a layer {layer}",
            earlier=earlier,
            num_hidden_layers=backbone.config.num_hidden_layers,
            layer=settings.layer,
        )
    return partial(hidden_states, backbone, settings.layer, task["normalise"])


def _write(
    folder: Path,
    recipe: Mapping[str, Any],
    settings: MaskedClusters,
    source: Recordings,
    features: Features,
) -> None:
    """Fit the clusters to a share of the training recordings, label all, and let the folder appear whole."""
    with replaced_folder(folder, "a run's clustering", lambda _folder: FILES, "index.json") as temp:
        utterances, skipped = source.utterances()
        train = [utterance for utterance in utterances if utterance.split == "train"]
        n_fitted = max(1, round(settings.fit_share * len(train)))
        chosen = np.random.default_rng(recipe["seed"]).permutation(len(train))[:n_fitted]
        fitted = [train[i] for i in sorted(chosen)]
        centroids_KD = _fit(temp / "features.raw", source, fitted, features, settings, recipe["seed"])
        np.save(temp / "centroids.npy", centroids_KD)
        every = MFCC_FRAMES_PER_LABEL if settings.source == "mfcc" else 1
        rows: list[tuple[str, str, str, int, int]] = []
        labels: list[np.ndarray] = []
        first = 0
        for utterance, n_samples, some_ND in _each(source, utterances, features, "labels"):
            if some_ND is None:
                skipped["unreadable" if n_samples < 0 else "shorter than one frame"] += 1
                continue
            labels.append(nearest(some_ND[::every], centroids_KD))
            assert len(labels[-1]) == encoder_frames(n_samples), "labels and encoder frames must coincide"
            rows.append((utterance.path.as_posix(), utterance.speaker, utterance.split, n_samples, first))
            first += len(labels[-1])
        np.save(temp / "labels.npy", np.concatenate(labels))
        index = json.dumps({"recipe": recipe, "skipped": skipped, "recordings": rows})
        (temp / "index.json").write_text(index, encoding="utf-8")


def _fit(
    raw: Path,
    source: Recordings,
    utterances: Sequence[Utterance],
    features: Features,
    settings: MaskedClusters,
    seed: int,
) -> np.ndarray:
    """Centroids; the features go through a file, since those of hundreds of hours do not fit in memory."""
    width = 0
    with raw.open("wb") as file:
        for _, _, some_ND in _each(source, utterances, features, "features to cluster"):
            if some_ND is not None:
                file.write(some_ND.astype(np.float32).tobytes())
                width = some_ND.shape[1]
    if not width:
        raise UserError("all recordings are unreadable or too short; check --data")
    centroids_KD = fit_centroids(np.memmap(raw, np.float32, "r").reshape(-1, width), settings, seed)
    raw.unlink()
    return centroids_KD


def _each(
    source: Recordings, utterances: Sequence[Utterance], features: Features, title: str
) -> Iterator[tuple[Utterance, int, np.ndarray | None]]:
    """Samples and features of every recording in order; None if it is too short, -1 samples if it is damaged."""

    def one(utterance: Utterance) -> tuple[Utterance, int, np.ndarray | None]:
        try:
            samples_S = source.samples(utterance.path.as_posix())
        except soundfile.LibsndfileError:
            return utterance, -1, None
        if not np.isfinite(samples_S).all():
            return utterance, -1, None
        return utterance, len(samples_S), features(samples_S) if encoder_frames(len(samples_S)) else None

    n_threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(n_threads) as pool, tqdm(total=len(utterances), desc=title, unit="clip") as bar:
        for start in range(0, len(utterances), 8 * n_threads):
            for result in pool.map(one, utterances[start : start + 8 * n_threads]):
                bar.update()
                yield result


def cluster_quality(speech: LabelledSpeech, recordings: Sequence[LabelledRecording]) -> dict[str, float]:
    """How well clusters match phones, if the data have phone times; else {}.

    Phone purity and cluster purity as in HuBERT's section V-A; `pnmi` is the mutual information over the phones'
    entropy, `nmi` over the mean of both entropies.
    """
    from sklearn.metrics import homogeneity_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    times = speech.source.phone_times()
    timed = [recording for recording in recordings if Path(recording.path).stem in times]
    if not timed:
        return {}
    clusters_N = np.concatenate([speech.labels(recording) for recording in timed])
    moments = [frame_times_s(np.arange(encoder_frames(recording.n_samples))) for recording in timed]
    phones_N = np.concatenate(
        [frame_labels(times[Path(recording.path).stem], at_L) for recording, at_L in zip(timed, moments, strict=True)]
    )
    counts_PK = contingency_matrix(phones_N, clusters_N)
    return {
        "frames": len(phones_N),
        "phones": len(counts_PK),
        "phone_purity": counts_PK.max(0).sum() / len(phones_N),
        "cluster_purity": counts_PK.max(1).sum() / len(phones_N),
        "pnmi": float(homogeneity_score(phones_N, clusters_N)),
        "nmi": float(normalized_mutual_info_score(phones_N, clusters_N)),
    }
