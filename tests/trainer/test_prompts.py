# SPDX-License-Identifier: GPL-3.0-or-later
"""`evaluate prompts` on made-up packages: which prompts are used, and where closures are."""

from __future__ import annotations

import ctypes.util
import gzip
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trainer.datasets.prompts import list_prompts  # noqa: E402
from trainer.evaluation.channel_tables import prompts_markdown  # noqa: E402
from trainer.evaluation.evaluate import evaluate  # noqa: E402
from trainer.evaluation.prompt_times import fits, weakest  # noqa: E402
from trainer.experiments import find  # noqa: E402
from trainer.speech.align import Aligned  # noqa: E402

RATE_HZ = 16_000
TRANSCRIPTS = """; Core Asterisk Sounds in French

bonjour: Bonjour papa: au revoir.
beep: [this is a beep]
lost: Il ? perdu une lettre.
short: Oui
letters/absent: Il n'y a pas de fichier.
digits/deux: Deux. Trois ?
"""
SOUNDS = {"bonjour": 2.0, "beep": 2.0, "lost": 2.0, "short": 0.5, "digits/deux": 3.0, "untold": 2.0}


@pytest.fixture
def packages(tmp_path) -> Path:
    """Two unpacked packages: one of transcripts, one of silent recordings."""
    doc = tmp_path / "fr" / "usr" / "share" / "doc" / "asterisk-core-sounds-fr"
    doc.mkdir(parents=True)
    (doc / "core-sounds-fr.txt.gz").write_bytes(gzip.compress(TRANSCRIPTS.encode()))
    voice = tmp_path / "fr-g722" / "usr" / "share" / "asterisk" / "sounds" / "fr_CA_f_June"
    for name, duration_s in SOUNDS.items():
        (voice / name).parent.mkdir(parents=True, exist_ok=True)
        (voice / f"{name}.g722").write_bytes(bytes(int(8000 * duration_s)))
    return tmp_path


def test_prompts_of_words_that_are_long_enough_are_used(packages) -> None:
    (language,) = found = list_prompts(packages, shortest_s=1.5, longest_s=8.0)
    assert language == "fr"
    assert {p.name: (p.text, p.duration_s, p.speaker) for p in found["fr"]} == {
        "bonjour": ("Bonjour papa: au revoir.", 2.0, "fr_CA_f_June"),
        "digits/deux": ("Deux. Trois ?", 3.0, "fr_CA_f_June"),
    }
    assert [p.name for p in list_prompts(packages, shortest_s=1.5, longest_s=2.5)["fr"]] == ["bonjour"]


def test_a_folder_without_packages_names_the_remedy(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no prompts; unpack Debian's asterisk-core-sounds-fr and"):
        list_prompts(tmp_path, shortest_s=1.5, longest_s=8.0)


def test_right_times_have_the_weakest_sound_in_the_stop() -> None:
    """Noise with a gap of 60 ms: times that fit it, and times 0.1 s late."""
    samples_S = np.random.default_rng(0).normal(0, 3000, RATE_HZ)
    samples_S[int(0.50 * RATE_HZ) : int(0.56 * RATE_HZ)] *= 0.01
    clip_S = samples_S.astype(np.int16)
    right = weakest([(clip_S, [("AA", 0.2, 0.5), ("P", 0.5, 0.58), ("AA", 0.58, 1.0)])])
    assert right["stops"] == 1 and right["dip_inside"] == 1 and 0 <= right["dip_ms"][1] <= 60
    assert right["dip_by_chance"] == pytest.approx(0.12 / 0.28)
    late = weakest([(clip_S, [("AA", 0.2, 0.6), ("B", 0.6, 0.68), ("AA", 0.68, 1.0)])])
    assert late["dip_inside"] == 0 and -100 <= late["dip_ms"][1] <= -40
    for other in (("SIL", 0.4, 0.45), ("K", 0.65, 0.7)):
        near_silence = weakest([(clip_S, sorted([("P", 0.5, 0.58), other], key=lambda phone: phone[1]))])
        assert near_silence == {"stops": 0, "dip_ms": None, "dip_inside": None, "dip_by_chance": None}


def test_times_that_fit_badly_are_left_out() -> None:
    phones = [("SIL", 0.0, 0.9), ("P", 0.9, 1.0), ("AA", 1.0, 1.4)]
    assert fits(Aligned(phones, -30.0), -40.0) and not fits(Aligned(phones, -41.0), -40.0)
    assert not fits(Aligned([*phones, ("L", 1.4, 2.0)], -30.0), -40.0)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed (`apt install ffmpeg`)")
@pytest.mark.skipif(not ctypes.util.find_library("espeak-ng"), reason="espeak-ng is not installed")
def test_the_right_text_passes_and_another_does_not(packages, tmp_path) -> None:
    """espeak-ng's French replaces a person: its own transcript passes, another's does not."""
    pytest.importorskip("pocketsphinx")
    from trainer.speech.espeak import synthesise_espeak

    voice = next(packages.rglob("fr_CA_f_June"))
    samples_S, _ = synthesise_espeak("Bonjour papa, au revoir ma belle maman.", "fr+f2", rate=140)
    pcm = tmp_path / "speech.raw"
    pcm.write_bytes(samples_S.tobytes())
    for name in ("right", "wrong"):
        command = ["ffmpeg", "-v", "error", "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", str(pcm)]
        subprocess.run([*command, "-f", "g722", str(voice / f"{name}.g722")], check=True)
    (transcripts,) = packages.rglob("*.txt.gz")
    said = "right: Bonjour papa, au revoir ma belle maman.\nwrong: Composez le numéro du poste, puis la clé carrée.\n"
    transcripts.write_bytes(gzip.compress(said.encode()))

    config = replace(find("evaluate", "prompts"), wrong_transcripts=2)
    out = tmp_path / "out"
    results = evaluate(config, packages, out, "default", "cpu")
    (row,) = results["languages"].values()
    assert row["closures"]["clips"] == 1 and row["closures"]["bilabials"] == 7
    assert row["alignment"]["prompts"] == 2 and row["alignment"]["failed"] + row["alignment"]["poor"] == 1
    assert row["alignment"]["wrong_passed"] == 0
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    text = (out / "results.md").read_text()
    assert text == prompts_markdown(results) and "| fr | fr_CA_f_June | 1 | 7 |" in text
    (kept,) = (out / "apertures").rglob("*.npz")
    assert kept.name == "right.npz" and float(np.load(kept)["fps"]) == 30
    np.savez(kept, aperture=np.zeros(100), fps=30.0)
    again = evaluate(config, packages, out, "default", "cpu")["languages"]["fr"]
    assert again["closures"]["recall"] == 1, "openings that are there are taken as they are"
