# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that are killed, resumed, damaged or shared between processes have the same result."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trainer.runs.checkpoints import load_newest, save_checkpoint  # noqa: E402
from trainer.runs.run import Run, data_hash, resolve_device  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.files import write_atomically  # noqa: E402

WORKER = Path(__file__).with_name("toy_training.py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 2


def open_run(folder: Path, config: Config | None = None, **options) -> Run:
    return Run(folder, verb="pretrain", name="toy", config=config or Config(), device="cpu", **options)


def toy(*arguments: object, processes: int = 1, wait: bool = True) -> subprocess.Popen:
    """Train the toy in separate processes, under torchrun (gloo) if there is more than one."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=0", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[2])}
    started = subprocess.Popen(
        [*launcher, str(WORKER), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if wait:
        output = started.communicate(timeout=180)[0].decode()
        assert started.returncode == 0, output
    return started


def weights(folder: Path) -> dict:
    return torch.load(folder / "toy.pt", weights_only=True)


def curve(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_killed_at_a_random_step_and_resumed_is_bit_identical(tmp_path) -> None:
    toy(tmp_path / "whole")
    killed = toy(tmp_path / "killed", "--slow", wait=False)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("checkpoints/*.pt")):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0, 0.6))
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "toy.pt").exists()
    toy(tmp_path / "killed", "--resume")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert curve(tmp_path / "whole") == curve(tmp_path / "killed")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_learn_what_one_learns(tmp_path, accumulate) -> None:
    toy(tmp_path / "one", "--no-dropout")
    toy(tmp_path / "two", "--no-dropout", "--accumulate", accumulate, processes=2)
    np.testing.assert_allclose(curve(tmp_path / "one"), curve(tmp_path / "two"), rtol=1e-5)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-6)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2


def test_the_curve_falls_and_the_run_describes_itself(tmp_path) -> None:
    toy(tmp_path / "run")
    losses = curve(tmp_path / "run")
    assert len(losses) > 10 and losses[-1] < 0.5 * losses[0]
    description = json.loads((tmp_path / "run" / "run.json").read_text())
    assert description["experiment"] == "toy" and description["config"]["seed"] == 0
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", description["commit"])
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path) -> None:
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, step, {"x": torch.full((3,), float(step))})
    names = sorted(path.name[:13] for path in tmp_path.iterdir())
    assert names == ["step-00000004", "step-00000006"], "the newest two are kept"
    newest = next(tmp_path.glob("step-00000006-*"))
    newest.write_bytes(newest.read_bytes()[:-100])
    said: list[str] = []
    step, state = load_newest(tmp_path, said.append)
    assert step == 4 and state["x"].tolist() == [4.0] * 3
    assert len(said) == 1 and newest.name in said[0] and "damaged" in said[0]
    before = next(tmp_path.glob("step-00000004-*"))
    before.write_bytes(b"")
    with pytest.raises(ValueError, match="every checkpoint is damaged"):
        load_newest(tmp_path, said.append)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch) -> None:
    save_checkpoint(tmp_path, 2, {"x": torch.zeros(2)})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left on device") as caught:
        save_checkpoint(tmp_path, 4, {"x": torch.ones(2)})
    assert "step-00000004" in str(caught.value) and caught.value.__cause__.errno == errno.ENOSPC
    assert [path.name[:13] for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path) -> None:
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    data = pickle.dumps({"model": Evil()})
    (tmp_path / f"step-00000002-{hashlib.sha256(data).hexdigest()[:16]}.pt").write_bytes(data)
    with pytest.raises(Exception, match="[Ww]eights|magic|pickle"):
        load_newest(tmp_path, print)
    assert not (tmp_path / "owned").exists()


def learn_nothing(run: Run) -> None:
    """Take one step, so that the folder holds a run."""
    model = torch.nn.Linear(1, 1)
    run.learn(model, torch.optim.SGD(model.parameters()))
    assert list(run.steps(1)) == [0]


def test_a_run_that_never_began_does_not_block_the_folder(tmp_path) -> None:
    open_run(tmp_path / "run").close()
    open_run(tmp_path / "run").close()


def test_two_runs_in_one_folder_are_refused(tmp_path) -> None:
    first = open_run(tmp_path / "run")
    learn_nothing(first)
    with pytest.raises(UserError, match="holds a run already; go on with --resume"):
        open_run(tmp_path / "run")
    with pytest.raises(UserError, match="another process is at work"):
        open_run(tmp_path / "run", resume=True)
    first.close()
    open_run(tmp_path / "run", resume=True).close()


def test_resuming_another_config_or_other_data_is_refused(tmp_path) -> None:
    run = open_run(tmp_path / "run")
    run.describe(data_sha256="aa")
    learn_nothing(run)
    run.close()
    with pytest.raises(ValueError, match="was begun with checkpoint_every = 2, this experiment has 3"):
        open_run(tmp_path / "run", Config(checkpoint_every=3), resume=True)
    again = open_run(tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="other data"):
        again.describe(data_sha256="bb")
    again.close()


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights(tmp_path) -> None:
    run = open_run(tmp_path / "run")
    model = torch.nn.Linear(2, 1)
    before = model.weight.detach().clone()
    wrapped = run.learn(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="the loss is nan at step 0"):
        for _ in run.steps(3):
            for _part in run.share([0]):
                run.backward(wrapped(torch.full((1, 2), float("nan"))).sum())
            run.update()
    assert torch.equal(model.weight, before)
    run.close()


def test_a_batch_too_small_to_share_is_refused(tmp_path) -> None:
    run = open_run(tmp_path / "run", Config(accumulate=4))
    model = torch.nn.Linear(1, 1)
    run.learn(model, torch.optim.SGD(model.parameters()))
    with pytest.raises(ValueError, match="global batch of 3 .* 1 processes with 4 micro-batches"):
        next(run.share([1, 2, 3]))
    run.close()


def test_unequal_parts_give_the_mean_over_the_batch(tmp_path) -> None:
    run = open_run(tmp_path / "run", Config(accumulate=2))
    model = torch.nn.Linear(1, 1, bias=False)
    wrapped = run.learn(model, torch.optim.SGD(model.parameters(), lr=1.0))
    with torch.no_grad():
        model.weight.fill_(0.0)
    for _ in run.steps(1):
        for part in run.share([1.0, 2.0, 6.0]):
            run.backward(wrapped(torch.tensor(part)[:, None]).mean())
        run.update()
    assert model.weight.item() == pytest.approx(-3.0), "the gradient is the mean of 1, 2 and 6"
    run.close()


def test_data_hash_knows_names_and_sizes(tmp_path) -> None:
    for folder, name in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / folder / "sub").mkdir(parents=True)
        write_atomically(tmp_path / folder / "sub" / name, b"12345")
        write_atomically(tmp_path / folder / "z", b"1")
    hashes = [data_hash((tmp_path / folder).rglob("[xyz]")) for folder in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]
    write_atomically(tmp_path / "a" / "sub" / "x", b"123")
    assert data_hash((tmp_path / "a").rglob("[xyz]")) != hashes[0]


def test_a_missing_device_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ValueError, match="--device cuda:3: torch finds no CUDA device"):
        resolve_device("cuda:3")
    assert resolve_device("auto") in ("cpu", "mps")
