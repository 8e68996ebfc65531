# SPDX-License-Identifier: GPL-3.0-or-later
"""A training run: its folder, its processes and devices (through accelerate), its progress, its checkpoints.

    run.json         experiment, config, commit, data hash, what was skipped
    metrics.jsonl    losses and rates by step, also in tensorboard/
    checkpoints/     for `--resume`
    NAME.pt          final weights

The randomness of a step depends only on (seed, step, process). A resumed run therefore draws the same numbers as an
uninterrupted one, without saved generator states.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import random
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.files import check_ours, write_atomically

from .checkpoints import load_newest, save_checkpoint, to_bytes

_T = TypeVar("_T")
LOG_EVERY = 50
LOG_ALL_BEFORE = 10
LOCK, TENSORBOARD = ".lock", "tensorboard"


class Run:
    """One training run in one folder; under `torchrun` or `accelerate launch`, one of its processes.

    `config` is the experiment's frozen dataclass, with `seed`, `precision` ("no", "bf16", "fp16"), `accumulate`
    (micro-batches an update) and `checkpoint_every` (steps).
    """

    def __init__(
        self, folder: Path, *, verb: str, name: str, config: Any, device: str = "auto", resume: bool = False
    ) -> None:
        """Open the folder.

        Raises:
            UserError: it holds a run and `resume` is off, another verb's or config's run, or anything else; or another
                process uses it.
        """
        self.folder, self.config, self.resume = folder, config, resume
        self.accelerator = _accelerator(config, device)
        self.device = self.accelerator.device
        self.process, self.n_processes = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self._lock: FileLock | None = None
        self._begun = resume
        if self.is_main:
            self._open(verb, name)
        self.accelerator.wait_for_everyone()
        self._learning: tuple[nn.Module, Any, Any] | None = None
        self._clip: float | None = None
        self._first = 0
        self._weight, self._loss = 1.0, torch.zeros((), device=self.device)
        self._bar: tqdm | None = None
        self._writer: SummaryWriter | None = None

    def _open(self, verb: str, name: str) -> None:
        described = self.folder / "run.json"
        if described.exists() and not self.resume:
            raise UserError(
                "{folder}: holds a run already; go on with --resume, or choose another --out",
                folder=self.folder,
            )
        if not described.exists():
            # A run that ended before its first step leaves its lock and tensorboard/.
            check_ours(self.folder, "a run", lambda _folder: (LOCK, TENSORBOARD))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                "{folder}: another process is at work in this run; choose another --out",
                folder=self.folder,
            ) from error
        config = json.loads(json.dumps(dataclasses.asdict(self.config), default=str))
        if described.exists():
            _check_same(self.folder, json.loads(described.read_text()), verb, config)
            return
        facts = {
            "verb": verb,
            "experiment": name,
            "config": config,
            "commit": git_commit(),
            "torch": torch.__version__,
            "processes": self.n_processes,
            "seed": self.config.seed,
        }
        self._write_description(facts)

    def describe(self, **facts: Any) -> None:
        """Add facts to run.json, such as the data's hash and what was skipped.

        Raises:
            UserError: the run is resumed with other data.
        """
        if not self.is_main:
            return
        known = self.described()
        before, now = known.get("data_sha256"), facts.get("data_sha256")
        if self.resume and before and now and before != now:
            raise UserError(
                "{folder}: was begun on other data (files have changed); choose another --out",
                folder=self.folder,
            )
        self._write_description(known | facts)

    def keep(self) -> None:
        """From here on the folder stays a run, however it ends."""
        self._begun = True

    def described(self) -> dict[str, Any]:
        """The contents of run.json, the same on every process."""
        return json.loads((self.folder / "run.json").read_text())

    def _write_description(self, facts: Mapping[str, Any]) -> None:
        write_atomically(self.folder / "run.json", (json.dumps(facts, indent=1, default=str) + "\n").encode())

    def learn(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
        clip: float | None = None,
    ) -> nn.Module:
        """Prepare a model for training: move it to the device and distribute it over the processes.

        Compute the loss only through the returned module's `forward`; otherwise processes do not average gradients.
        A resumed run continues from the newest intact checkpoint.
        """
        wrapped, prepared = self.accelerator.prepare(model, optimiser)
        self._learning, self._clip = (wrapped, prepared, schedule), clip
        if self.resume and (found := load_newest(self.folder / "checkpoints", self.say)):
            self._first, state = found
            unwrap(wrapped).load_state_dict(state["model"])
            prepared.load_state_dict(state["optimiser"])
            if schedule is not None:
                schedule.load_state_dict(state["schedule"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.say(f"{self.folder}: goes on after step {self._first}")
        return wrapped

    def steps(self, total: int) -> Iterator[int]:
        """The remaining steps of 0 .. total-1, with a progress bar and with checkpoints, also at the end."""
        self.keep()
        self._forget_from(self._first)
        self._bar = tqdm(
            range(self._first, total),
            initial=self._first,
            total=total,
            unit="step",
            mininterval=5,
            disable=not self.is_main,
        )
        self._total, self._audio_s, self._started = total, 0.0, time.perf_counter()
        for step in self._bar:
            self._step = step
            _seed_everything(self.config.seed, step, self.process)
            yield step
            if (step + 1) % self.config.checkpoint_every == 0 or step + 1 == total:
                self._save_checkpoint(step + 1)
        if self._writer is not None:
            self._writer.close()

    def _forget_from(self, step: int) -> None:
        """Drop rows logged after the checkpoint, as they will be logged again."""
        if not self.is_main:
            return
        self._writer = SummaryWriter(str(self.folder / TENSORBOARD), purge_step=step or None)
        path = self.folder / "metrics.jsonl"
        rows = path.read_text().splitlines(keepends=True) if path.is_file() else []
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] < step]
        write_atomically(path, "".join(kept).encode())

    def _save_checkpoint(self, step: int) -> None:
        if self.is_main:
            assert self._learning is not None, "learn() comes before steps()"
            model, optimiser, schedule = self._learning
            state = {"model": unwrap(model).state_dict(), "optimiser": optimiser.state_dict()}
            if schedule is not None:
                state["schedule"] = schedule.state_dict()
            if self.accelerator.scaler is not None:
                state["scaler"] = self.accelerator.scaler.state_dict()
            save_checkpoint(self.folder / "checkpoints", step, state)
        self.accelerator.wait_for_everyone()

    def share(self, items: Sequence[_T]) -> Iterator[list[_T]]:
        """This process's part of a global batch, in `accumulate` micro-batches; gradients are averaged at the last.

        Parts of unequal size are weighted so that their mean losses add up to the mean over the whole batch.

        Raises:
            UserError: the batch has fewer items than parts.
        """
        n_parts = self.n_processes * self.config.accumulate
        if len(items) < n_parts:
            raise UserError(
                "a global batch of {n_items} is too small for {n_processes} processes with {accumulate} "
                "micro-batches each; enlarge the batch or use fewer",
                n_items=len(items),
                n_processes=self.n_processes,
                accumulate=self.config.accumulate,
            )
        assert self._learning is not None, "learn() comes before share()"
        model = self._learning[0]
        mine = range(self.process, n_parts, self.n_processes)
        for part in mine:
            chosen = list(items[part::n_parts])
            self._weight = len(chosen) * n_parts / len(items)
            waiting = nullcontext() if part == mine[-1] else self.accelerator.no_sync(model)
            with waiting:
                yield chosen

    def autocast(self) -> AbstractContextManager[None]:
        """The config's precision."""
        return self.accelerator.autocast()

    def backward(self, loss: Tensor) -> None:
        """Gradients of a micro-batch's mean loss."""
        weighed = loss * self._weight
        self._loss += weighed.detach() / self.config.accumulate
        self.accelerator.backward(weighed)

    def update(self) -> None:
        """One optimiser step.

        Raises:
            UserError: the loss is not finite; the last checkpoint is kept.
        """
        assert self._learning is not None, "learn() comes before update()"
        model, optimiser, schedule = self._learning
        if not torch.isfinite(self._loss):
            raise UserError(
                "{folder}: the loss is {loss} at step {step}; the last checkpoint is kept",
                folder=self.folder,
                loss=self._loss.item(),
                step=self._step,
            )
        if self._clip is not None:
            self.accelerator.clip_grad_norm_(model.parameters(), self._clip)
        optimiser.step()
        optimiser.zero_grad()
        if schedule is not None:
            schedule.step()

    def log(self, step: int, always: bool = False, /, *, audio_s: float, **values: Tensor | float) -> None:
        """Count the global batch's audio; at some steps, or `always`, log the loss, the learning rate and `values`."""
        self._audio_s += audio_s
        loss, self._loss = self._loss, torch.zeros((), device=self.device)
        if step % LOG_EVERY and LOG_ALL_BEFORE <= step < self._total - 1 and not always:
            return
        named: dict[str, Tensor | float] = {"loss": loss, **values}
        local = torch.tensor([float(value) for value in named.values()], device=self.device)
        means = self.accelerator.reduce(local, reduction="mean").tolist()
        if not self.is_main:
            return
        assert self._learning is not None and self._bar is not None and self._writer is not None
        rate = self._audio_s / (time.perf_counter() - self._started)
        row = dict(zip(named, means, strict=True)) | {"lr": self._learning[1].param_groups[0]["lr"]}
        for key, value in (row | {"audio_s_per_s": rate}).items():
            self._writer.add_scalar(key, value, step)
        rounded = {"step": step, "audio_s_per_s": round(rate, 2)} | {k: float(f"{v:.7g}") for k, v in row.items()}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(rounded) + "\n")
        self._bar.set_postfix({key: f"{value:.4g}" for key, value in rounded.items() if key != "step"})

    def rng(self, *key: int) -> np.random.Generator:
        """Random numbers that depend only on the seed and the key: the same on every process and after a resume."""
        return np.random.default_rng([self.config.seed, *key])

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write final weights into the folder."""
        if self.is_main:
            write_atomically(self.folder / name, to_bytes(state))
        self.accelerator.wait_for_everyone()

    def report(self, name: str, values: Mapping[str, Any]) -> None:
        """Print results and keep them as NAME.json."""
        if self.is_main:
            text = json.dumps(values, indent=1, default=float)
            write_atomically(self.folder / f"{name}.json", (text + "\n").encode())
            print(name, text)

    def say(self, text: str) -> None:
        """Print once, above the progress bar."""
        if self.is_main:
            tqdm.write(text)

    def close(self) -> None:
        """Release the folder; a run that never began its first step leaves no run.json."""
        if self._lock is not None:
            if not self._begun:
                (self.folder / "run.json").unlink(missing_ok=True)
            self._lock.release()


def choose_attention(backbone: Any, run: Run) -> None:
    """Use plain attention on a CPU in bf16, where torch's fused one is slower."""
    if run.device.type == "cpu" and run.config.precision == "bf16":
        backbone.set_attn_implementation("eager")


def unwrap(model: nn.Module) -> nn.Module:
    """The module without its distributed wrapper."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def cosine_with_warmup(optimiser: torch.optim.Optimizer, warmup: int, total: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine to zero."""
    return torch.optim.lr_scheduler.LambdaLR(optimiser, _cosine(warmup, total))


def _cosine(warmup: int, total: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))

    return factor


def data_hash(files: Iterable[Path]) -> str:
    """sha256 over the files' names (relative to their common folder) and sizes; hashing a corpus' bytes would take
    hours."""
    resolved: dict[str, str] = {}
    found: list[tuple[str, int]] = []
    for file in files:  # hundreds of thousands: `Path.resolve` would look at each of their parents every time
        folder, name = os.path.split(file)
        if folder not in resolved:
            resolved[folder] = os.path.realpath(folder)
        path = os.path.join(resolved[folder], name)
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            path, status = os.path.realpath(path), os.stat(path)
        found.append((path.replace(os.sep, "\0"), status.st_size))  # sorts as the parts of a path do
    digest = hashlib.sha256()
    if found:
        root = os.path.commonpath({os.path.dirname(path.replace("\0", os.sep)) for path, _ in found})
        n_root = len(root.rstrip(os.sep)) + 1
        lines = (f"{path[n_root:].replace(chr(0), '/')} {size}" for path, size in sorted(found))
        for number, line in enumerate(lines):
            digest.update((f"\n{line}" if number else line).encode())
    return digest.hexdigest()


def git_commit() -> str:
    """The checkout's commit, with "-dirty" where tracked files differ from it; "unknown" outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        asked = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return asked.stdout.strip() or "unknown"


def read_run(folder: Path, *needed: str) -> dict[str, Any]:
    """The run.json of a finished run.

    Raises:
        MissingFileError: it, or one of the `needed` files, is missing.
    """
    for name in ("run.json", *needed):
        if not (folder / name).is_file():
            raise MissingFileError(
                "{file} is missing; {folder} is not a finished run",
                file=folder / name,
                folder=folder,
            )
    return json.loads((folder / "run.json").read_text())


def resolve_device(device: str) -> str:
    """ "auto" becomes the best device there is.

    Raises:
        UserError: a CUDA device is requested and there is none.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            "--device {device}: torch finds no CUDA device here; use --device cpu or auto",
            device=device,
        )
    return device


def _accelerator(config: Any, device: str) -> Accelerator:
    resolved = resolve_device(device)
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # accelerate keeps global state; a second run in the process may have another precision or device.
    AcceleratorState._reset_state(reset_partial_state=not distributed)
    if not distributed and resolved != "cpu":
        os.environ["ACCELERATE_TORCH_DEVICE"] = resolved
    # LayerDrop and an unused mask embedding leave parameters without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        cpu=resolved == "cpu",
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulate,
        kwargs_handlers=[unused],
    )


def _seed_everything(*key: int) -> None:
    words = np.random.SeedSequence(key).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))
    random.seed(int(words[2]))


def _check_same(folder: Path, known: Mapping[str, Any], verb: str, config: Mapping[str, Any]) -> None:
    if known["verb"] != verb:
        raise UserError(
            "{folder}: holds a run of {other}, not of {verb}; choose another --out",
            folder=folder,
            other=known["verb"],
            verb=verb,
        )
    differing = sorted(
        key for key in config.keys() | known["config"].keys() if config.get(key) != known["config"].get(key)
    )
    if differing:
        key = differing[0]
        raise UserError(
            "{folder}: was begun with {key} = {before!r}, this experiment has {now!r}; choose another --out",
            folder=folder,
            key=key,
            before=known["config"].get(key),
            now=config.get(key),
        )
