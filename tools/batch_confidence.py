# SPDX-License-Identifier: GPL-3.0-or-later
"""How well a batch's confidence tells lines whose lips close wrongly, on recordings with published phone times.

    python -m tools.batch_confidence DATA WORK

DATA holds `librispeech_4_aligned`. Each clip is heard as it is and beside four other voices at 20, 10, 5 and 0 dB; a
batch makes all of them without and with their texts, in the folder WORK. Printed: Spearman's rank correlation of the
confidence with the closure F1 of each line (`trainer/evaluation/lipsync.py`), and what share of the tenth with the
lowest F1 is in the tenth, and in the quarter, with the lowest confidence. Chance finds a tenth, and a quarter.

Shapes: S samples at 16 kHz, N lines, T frames.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from trainer.evaluation.lipsync import judge, pool_closures
from trainer.motion.shapes import flame_opening
from trainer.speech.align import published_times
from wav2sem_blender.assets import DEFAULT_MODEL
from wav2sem_blender.pipeline.checkpoint import ModelFolder, open_folder
from wav2sem_blender.pipeline.motion import Motion

ROOT = Path(__file__).resolve().parents[1]
SNRS_DB = (None, 20, 10, 5, 0)
N_BABBLERS = 4


def main() -> None:
    """Make the lines, run both batches, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("work", type=Path, metavar="WORK")
    chosen = parser.parse_args()
    corpus = chosen.data / "librispeech_4_aligned"
    texts = dict(line.split("\t")[:2] for line in (corpus / "transcripts.tsv").read_text(encoding="utf-8").splitlines())
    lines = write_lines(corpus, chosen.work)
    gap_K, times = opening_of_channels(), published_times(corpus)
    print("| lines | confidence | F1, mean | rank correlation | worst tenth in the lowest tenth, quarter |")
    print("|---|---|---|---|---|")
    for with_text in (False, True):
        records = run_batch(chosen.work, lines, texts if with_text else {})
        sure_N = np.array([record["confidence"] for record in records])
        f1_N = np.array([closure_f1(chosen.work, record, gap_K, times) for record in records])
        clean_N = np.array([record["name"].endswith("_clean") for record in records])
        for name, some_N in (("clean", clean_N), ("clean and babble", np.ones_like(clean_N))):
            print(row(name, "with the text" if with_text else "of the ear", sure_N[some_N], f1_N[some_N]))


def write_lines(corpus: Path, work: Path) -> list[str]:
    """Write every clip in every condition; returns the lines' names."""
    (work / "sounds").mkdir(parents=True, exist_ok=True)
    clips = {path.stem: soundfile.read(path, dtype="float32")[0] for path in sorted(corpus.glob("*.flac"))}
    generator, lines = np.random.default_rng(0), []
    for name, clip_S in clips.items():
        others = [other for other in clips if other.partition("-")[0] != name.partition("-")[0]]
        babble_S = sum(np.resize(clips[other], len(clip_S)) for other in generator.choice(others, N_BABBLERS))
        for snr_db in SNRS_DB:
            line = f"{name}_{'clean' if snr_db is None else f'{snr_db}dB'}"
            heard_S = clip_S
            if snr_db is not None:
                gain = np.sqrt(np.mean(clip_S**2) / np.mean(babble_S**2) / 10 ** (snr_db / 10))
                heard_S = clip_S + gain * babble_S
            soundfile.write(work / "sounds" / f"{line}.wav", 0.9 * heard_S / np.abs(heard_S).max(), 16_000)
            lines.append(line)
    return lines


def run_batch(work: Path, lines: list[str], texts: dict[str, str]) -> list[dict]:
    """Make the lines, and return their records."""
    name = "with_texts" if texts else "plain"
    with (work / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("audio", "text"))
        table.writerows((f"sounds/{line}.wav", texts.get(line.rpartition("_")[0], "")) for line in lines)
    arguments = ["batch", str(work / f"{name}.csv"), "--output", str(work / name)]
    command = [sys.executable, "-m", "wav2sem_blender", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with (work / name / "report.jsonl").open(encoding="utf-8") as report:
        return [json.loads(line) | {"folder": name} for line in report]


def opening_of_channels() -> np.ndarray:
    """How far each channel of the bundled model opens the lips, in metres (K,)."""
    folder = open_folder(DEFAULT_MODEL)
    assert isinstance(folder, ModelFolder)
    basis_KV3 = folder.basis()
    assert basis_KV3 is not None
    return flame_opening(basis_KV3)


def closure_f1(work: Path, record: dict, gap_K: np.ndarray, times: dict) -> float:
    """F1 of the closures of one line."""
    motion = Motion.load(work / record["folder"] / f"{record['name']}.npz")
    opening_T = np.maximum(motion.weights_TK[:, : len(gap_K)] @ gap_K, 0)
    counts = judge(opening_T, motion.fps, times[record["name"].rpartition("_")[0]], record["seconds"])
    return pool_closures([counts]).f1 or 0.0


def row(lines: str, confidence: str, sure_N: np.ndarray, f1_N: np.ndarray) -> str:
    """A row of the table."""
    ranks = np.corrcoef(_ranks(sure_N), _ranks(f1_N))[0, 1]
    n_worst = max(1, len(f1_N) // 10)
    worst, by_confidence = set(np.argsort(f1_N, kind="stable")[:n_worst]), np.argsort(sure_N, kind="stable")
    found = [len(worst & set(by_confidence[:n])) / n_worst for n in (n_worst, len(f1_N) // 4)]
    shares = ", ".join(f"{100 * share:.0f} %" for share in found)
    return f"| {lines}, {len(f1_N)} | {confidence} | {f1_N.mean():.3f} | {ranks:.2f} | {shares} |"


def _ranks(values_N: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share their mean."""
    _, inverse, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


if __name__ == "__main__":
    main()
