# SPDX-License-Identifier: GPL-3.0-or-later
"""The real verbs under torchrun and kill -9: two gloo processes give the weights of one, and so does a resumed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.trainer.miniature_faces import write_vocaset  # noqa: E402
from tests.trainer.miniature_librispeech import write_librispeech  # noqa: E402

ROOT = Path(__file__).parents[2]
# Each process draws its own dropout; without dropout, results can be compared.
EXPERIMENTS = """
from dataclasses import replace
from trainer.experiments import face, hubert, wav2sem

STILL = dict.fromkeys(wav2sem.PUBLISHED_DROPOUTS, 0.0)

def pretrain():
    smoke = wav2sem.smoke()
    return replace(smoke, encoder_config=dict(smoke.encoder_config) | STILL, steps=6, checkpoint_every=2)

def pretrain_hubert():
    smoke = hubert.smoke()
    encoder = replace(smoke.encoder, config=dict(smoke.encoder.config) | STILL)
    return replace(smoke, encoder=encoder, steps=4, checkpoint_every=2)

def finetune():
    smoke = face.smoke()
    encoder = replace(smoke.encoder, config=dict(smoke.encoder.config) | STILL)
    host = replace(smoke.host, dropout=0.0)
    return replace(smoke, encoder=encoder, host=host, batch=2, mask_share=0.0, epochs=3, checkpoint_every=2)

def long():
    return replace(wav2sem.smoke(), steps=40, checkpoint_every=3)
"""
VERBS = {
    "pretrain": ("LibriSpeech", "wav2sem.pt"),
    "pretrain-hubert": ("LibriSpeech", "encoder.pt"),
    "finetune": ("VOCASET", "model/model.safetensors"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    write_librispeech(folder / "LibriSpeech", utterances=4)
    write_vocaset(folder / "VOCASET", sentences=(1, 21), seconds=0.5)
    (folder / "own.py").write_text(EXPERIMENTS)
    return folder


def train(folder: Path, verb: str, experiment: str, out: str, *options: str, processes: int = 1) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    data = VERBS[verb][0]
    command = [sys.executable, *launcher, "-m", "trainer", verb, f"own.py:{experiment}"]
    command += ["--data", data, "--out", out, "--device", "cpu", *options]
    cache = {"WAV2SEM_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=folder, env=os.environ | cache, text=True, **pipe)


def finish(process: subprocess.Popen) -> None:
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output[-3000:]


def curve(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("verb", VERBS)
def test_two_processes_learn_what_one_learns(folder, verb) -> None:
    experiment = verb.replace("-", "_")
    finish(train(folder, verb, experiment, f"{verb}-1"))
    finish(train(folder, verb, experiment, f"{verb}-2", processes=2))
    one, two = curve(folder / f"{verb}-1"), curve(folder / f"{verb}-2")
    assert len(one) >= 3
    np.testing.assert_allclose(one, two, rtol=2e-4)
    assert (folder / f"{verb}-2" / VERBS[verb][1]).is_file()


def test_killed_and_resumed_is_bit_identical(folder) -> None:
    finish(train(folder, "pretrain", "long", "whole"))
    killed = train(folder, "pretrain", "long", "killed")
    deadline = time.monotonic() + 200
    while not list((folder / "killed").glob("checkpoints/*.pt")):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0, 0.5))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    if killed.returncode != -signal.SIGKILL:
        pytest.skip("the run had ended before the signal came")
    finish(train(folder, "pretrain", "long", "killed", "--resume"))
    whole, resumed = (torch.load(folder / run / "wav2sem.pt", weights_only=True) for run in ("whole", "killed"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert curve(folder / "whole") == curve(folder / "killed")
