# SPDX-License-Identifier: GPL-3.0-or-later
"""What is fuzzed: how a target's case is made from its number, and what reads it.

A reader either accepts a file or raises an error that has a sentence for the user (`errors.user_text`). Anything else
is a failure: another exception, a crash, more than 10 s, or memory beyond the budget.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from . import mutate, seeds  # noqa: TID252

MEMORY_BYTES = 1 << 30
"""More than a target's process has after its first case; small files have no reason to need it."""


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        make: Writes case number N, damaged by `chance`, into an empty folder; returns what `read` is given.
        read: Reads it.
        contains_crashes: The target runs in a child process of Blender's, so a crash there is a sentence to the user.
        needs: A module without which the target is left out.
    """

    make: Callable[[Path, random.Random], Path]
    read: Callable[[Path], object]
    contains_crashes: bool = False
    needs: str = ""


def _file_of(found: Callable[[], dict[str, bytes]]) -> Callable[[Path, random.Random], Path]:
    def make(folder: Path, chance: random.Random) -> Path:
        files = found()
        name = chance.choice(sorted(files))
        path = folder / name
        path.write_bytes(mutate.damaged(files[name], files[chance.choice(sorted(files))], chance))
        return path

    return make


def _read_sound(path: Path) -> None:
    from wav2sem_blender.pipeline.audio import Speech

    with Speech.from_file(path, path.parent) as speech:
        speech.read(0, min(speech.n_samples, 100))


def _look_and_decode(path: Path) -> None:
    """What the panel's and the run's child processes do with a sound."""
    from wav2sem_blender.blender.sound import second_blender
    from wav2sem_blender.worker import look

    for task in (
        lambda: look.run([str(path)]),
        lambda: second_blender._look(str(path), path.name),
        lambda: _decode(path),
    ):
        _sentence(task)


def _decode(path: Path) -> None:
    from wav2sem_blender.blender.sound import decode

    decode.decode(decode.SoundPart(source=str(path), target=str(path.parent / "decoded" / "out.wav"), label="sound"))


def _sentence(task: Callable[[], object]) -> None:
    """Run it, and raise unless it worked or told the user why not."""
    from wav2sem_blender.errors import user_text

    try:
        task()
    except Exception as error:
        if user_text(error) is None:
            raise


def _read_arrays(path: Path) -> None:
    from wav2sem_blender.pipeline.given_features import read_features
    from wav2sem_blender.pipeline.motion import Motion, is_motion_file
    from wav2sem_blender.pipeline.prosody import Prosody

    is_motion_file(path)
    _sentence(lambda: Prosody.load(path))
    _sentence(lambda: read_features(path, 29, 0.5))
    motion = Motion.load(path)
    motion.vertex_offsets(0, 1)
    if motion.phones is not None:
        motion.phones.spans()


def _make_mapping(folder: Path, chance: random.Random) -> Path:
    path = folder / "mapping.json"
    path.write_bytes(mutate.damaged_json(chance.choice(seeds.mappings()), chance))
    return path


def _read_mapping(path: Path) -> None:
    from wav2sem_blender.pipeline.face_names import KeyMap

    mapping = KeyMap.load(path)
    mapping.problems(["Mouth_Open"])
    str(mapping.summary())
    mapping.can_speak()
    mapping.save(path.with_suffix(".copy"))


def _make_track(folder: Path, chance: random.Random) -> Path:
    files = seeds.tracks()
    if chance.random() < 0.4:
        (folder / "track.json").write_bytes(mutate.damaged_json(json.loads(files["track.json"]), chance))
        return folder / "track.json"
    return _file_of(seeds.tracks)(folder, chance)


def _read_track(path: Path) -> None:
    from wav2sem_blender.pipeline.mouth import directed
    from wav2sem_blender.pipeline.words.directions import AMOUNTS
    from wav2sem_blender.pipeline.words.track_files import is_track_file, load_track, save_track

    is_track_file(path)
    track = load_track(path)
    for name in AMOUNTS:
        amount_T = directed(track.directions, name, 60, 30.0, 0.08)
        assert np.isfinite(amount_T).all()
    track.between(0.2, 0.8)
    for suffix in (".TextGrid", ".csv", ".json"):
        save_track(track, path.with_name(f"copy{suffix}"))


def _read_manifest(path: Path) -> None:
    from wav2sem_blender.batch.manifest import Checks, read

    for name in ("a.wav", "b.wav"):
        (path.parent / name).write_bytes(b"RIFF")
    read(str(path), Checks(files=lambda row: [path.parent / f"{row.name}.npz"]))


def _read_pickle(path: Path) -> None:
    from wav2sem_blender.pipeline import restricted_pickle

    if path.suffix == ".pkl":
        restricted_pickle.load(path)
        return
    from wav2sem_blender.pipeline.official.published import precision_notes, read_file

    precision_notes(path, read_file(path))


def _make_folder(folder: Path, chance: random.Random) -> Path:
    """A model whose description, weights or graphs are damaged, with hashes that fit: who made it is the stranger."""
    models = _models()
    files = dict(models[chance.choice(sorted(models))])
    config = json.loads(files["config.json"])
    name = chance.choice(sorted(files))
    if name != "config.json":
        files[name] = mutate.damaged(files[name], files["config.json"], chance)
    kind = chance.random()
    if name == "config.json" and kind < 0.05:
        config["model"]["wav2sem"] = config["model"].get("wav2sem") or {"config": {}, "target_dim": 8}
        config["wav2sem"] = config.pop("model")["wav2sem"]
    if name == "config.json" and 0.05 <= kind < 0.1:
        config["format_version"], model = 1, config["model"]
        model["decoder"] = model.pop("host")["settings"]
    for other, content in files.items():
        if other in config["files"]:
            config["files"][other] = hashlib.sha256(content).hexdigest()
    damage = name == "config.json" or kind < 0.2
    files["config.json"] = mutate.damaged_json(config, chance) if damage else json.dumps(config).encode()
    for other, content in files.items():
        (folder / other).write_bytes(content)
    return folder


@cache
def _models() -> dict[str, dict[str, bytes]]:
    return seeds.folders()


def _run_folder(folder: Path) -> None:
    from wav2sem_blender.pipeline import checkpoint
    from wav2sem_blender.pipeline.infer import SpeechAnimator

    checkpoint.model_files(folder)
    opened = checkpoint.open_folder(folder)
    animator = SpeechAnimator.load(folder, device="cpu")
    waveform_S = np.random.default_rng(0).normal(0, 0.1, 12_000).astype(np.float32)
    if isinstance(opened, checkpoint.Wav2SemFolder):
        animator.semantic(waveform_S, seeds.RATE_HZ)
        return
    strength = 0.0 if opened.config.host.text_width else 1.0
    motion = animator.animate(waveform_S, seeds.RATE_HZ, semantic_strength=strength)
    motion.save(folder / "motion.npz")


TARGETS = {
    "sounds": Target(_file_of(seeds.sounds), _read_sound, needs="soundfile"),
    "panel": Target(_file_of(seeds.sounds), _look_and_decode, contains_crashes=True, needs="bpy"),
    "folders": Target(_make_folder, _run_folder),
    "mappings": Target(_make_mapping, _read_mapping),
    "arrays": Target(_file_of(seeds.motions), _read_arrays),
    "tracks": Target(_make_track, _read_track),
    "manifests": Target(_file_of(seeds.manifests), _read_manifest),
    "pickles": Target(_file_of(seeds.pickles), _read_pickle),
}
