# SPDX-License-Identifier: GPL-3.0-or-later
"""Published checkpoints (`checkpoint_kinds.py`) become model folders, and models become files in the published format.

One module for each host knows the names and shapes of its files; `published.Format` says what it must offer. A linear
head on vertices becomes named keys (`nn/keys.py`). A Wav2Sem inside a face model's file comes along.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from ...errors import MissingFileError, Text, UserError
from ..checkpoint import BASIS_KEY, PUBLISHED, ModelConfig, ModelFolder, check_replaceable, save_model, save_wav2sem
from ..checkpoint_kinds import AUTO, CHECKPOINT_KINDS, KIND_NAMES
from ..nn.face_model import FaceModel
from . import wav2sem
from .codetalker import STAGE_1_KEY
from .published import Format, Source, check_keys, precision_notes, read_file, write_file

BESIDE = (".obj", ".npy", ".pkl")
"""Files that are given with a checkpoint."""


def import_official(
    file: str | os.PathLike[str],
    kind: str,
    output: str | os.PathLike[str],
    notes: list[Text] | None = None,
    beside: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Write a model folder from a published file.

    A host becomes a whole model, with the Wav2Sem of its file if it has one. A Wav2Sem alone is an encoder without a
    face: `SpeechAnimator.load` on its folder gives sentence vectors, and training fuses it into a face model. Kind
    "auto" recognises the file by its keys. Weights in half precision are computed in float32 from then on.

    Args:
        file: The checkpoint.
        kind: One of `KIND_NAMES`, or "auto".
        output: The model folder.
        notes: Gets a sentence about everything that the user should know.
        beside: Further files that this kind needs, such as CodeTalker's stage 1.

    Raises:
        MissingFileError: There is no such file, or a further one is needed.
        UserError: The kind is unknown; the file is truncated, no checkpoint, or another model's (the message names its
            size or the key); or `output` holds anything but a model of ours.
    """
    path, output = Path(file), Path(output)
    if kind not in (AUTO, *KIND_NAMES):
        raise UserError("kind {kind!r}: known are {known}", kind=kind, known=", ".join((AUTO, *KIND_NAMES)))
    check_replaceable(output)
    # A face or a table of templates is no checkpoint, even if it was named first.
    first, *others = sorted([path, *map(Path, beside)], key=lambda file: file.suffix.lower() in BESIDE)
    source = _source(first, others)
    kind, source = _recognised(source) if kind == AUTO else (kind, source)
    host = next(known.host for known in CHECKPOINT_KINDS if known.name == kind)
    if host:
        _import_face(source, kind, format_of(host), output)
    else:
        _import_wav2sem(source, kind, output)
    if notes is not None:
        notes += source.notes
    return output


def _source(path: Path, beside: Sequence[Path]) -> Source:
    stored = read_file(path)
    state = {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}
    return Source(path=path, state=state, beside=beside, notes=precision_notes(path, stored))


def format_of(host: str) -> Format:
    """The module that knows the files of a host.

    Raises:
        UserError: The host has no published format.
    """
    if host not in {kind.host for kind in CHECKPOINT_KINDS if kind.host}:
        raise UserError("the face model {host} has no published format", host=host)
    return cast(Format, importlib.import_module(f".{host}", __name__))


def _recognised(source: Source) -> tuple[str, Source]:
    """The kind of a file, or of one that was given with it: who selects two files does not know which is the first."""
    kind = _kind_of(source)
    if kind and kind.startswith("codetalker") and not source.beside and wav2sem.is_inside(source.state):
        note = Text(
            "{file}: its Wav2Sem is imported; for its face, give the file of stage 1 too", file=source.path.name
        )
        source.notes.append(note)
        return "codetalker-wav2sem", source
    if kind:
        return kind, source
    files = [source.path, *source.beside]
    for path in source.beside:
        with contextlib.suppress(UserError):  # a table beside the weights is no checkpoint
            other = _source(path, [file for file in files if file != path])
            if kind := _kind_of(other):
                return kind, other
    if STAGE_1_KEY in source.state:
        raise MissingFileError(
            "{file}: it is stage 1, a codec of motion; the file of stage 2 is needed too", file=source.path.name
        )
    raise UserError(
        "{file}: its keys fit no known checkpoint: {known}", file=source.path.name, known=", ".join(KIND_NAMES)
    )


def _kind_of(source: Source) -> str | None:
    if wav2sem.recognised(source.state):
        return "wav2sem"
    for host in dict.fromkeys(kind.host for kind in CHECKPOINT_KINDS if kind.host):
        found = format_of(host).recognised(source.state)
        if found:
            return found
    if wav2sem.is_inside(source.state):
        return "codetalker-wav2sem"
    return None


def _import_face(source: Source, kind: str, files: Format, output: Path) -> None:
    source.state = {key.removeprefix(files.PREFIX): value for key, value in source.state.items()}
    semantic = wav2sem.take(source)
    published = files.read(kind, source)
    config = ModelConfig(
        name=source.path.stem,
        encoder=published.encoder,
        wav2sem=None if semantic is None else wav2sem.CONFIG,
        host=published.host,
        channels=(),
        styles=published.styles,
        topology=published.topology,
        basis_unit=published.basis_unit,
        legacy_predict=published.legacy_predict and semantic is not None,
        emotion=published.emotion,
        provenance={"imported": kind},
    )
    model = FaceModel(config, published.n_outputs)
    state = published.state | (semantic or {})
    check_keys(source.path, state, model.state_dict())
    model.load_state_dict(state, assign=True)  # not a second copy: two stages can be gigabytes
    published.prepare(model.decoder)
    save_on_keys(output, config, model)


def save_on_keys(folder: Path, config: ModelConfig, model: FaceModel) -> ModelFolder:
    """Write a model folder: the model as it is, with its network on named channels."""
    keyed = model.decoder.on_keys()
    others = {key: value for key, value in model.state_dict().items() if not key.startswith("decoder.")}
    state = (
        others
        | {f"decoder.{key}": value for key, value in keyed.state.items()}
        | {f"{PUBLISHED}{key}": value for key, value in keyed.published.items()}
    )
    tensors = {key: value.detach().cpu().numpy() for key, value in state.items()}
    if keyed.basis_KV3 is not None:
        tensors[BASIS_KEY] = keyed.basis_KV3
    provenance = {**config.provenance, **({"keys_error": keyed.error} if keyed.error else {})}
    styles = (*keyed.more_styles, *config.styles)
    described = replace(config, host=keyed.host, channels=keyed.channels, styles=styles, provenance=provenance)
    return save_model(folder, described, tensors)


def _import_wav2sem(source: Source, kind: str, output: Path) -> None:
    if kind == "wav2sem":
        state = {f"wav2sem.{key}": value for key, value in wav2sem.read(source.path, source.state).items()}
    else:
        source.take(wav2sem.FUSION + "weight")
        state = wav2sem.take(source) or {}
    save_wav2sem(output, wav2sem.CONFIG, {key: value.numpy() for key, value in state.items()})


def export_official(model: ModelFolder, folder: Path) -> list[Path]:
    """Write a model's files for the released code of its host into `folder`, with `Wav2Bert.*` if it has a Wav2Sem.

    Raises:
        UserError: The format cannot hold the model: it has another architecture, or no published format.
    """
    from ..engine_torch import load_state

    files = format_of(model.config.host.KIND)
    written = files.write(model)
    if model.config.wav2sem is not None:
        first = next(iter(written))
        semantic = wav2sem.beside_a_host(model.config.wav2sem, load_state(model), files.PREFIX)
        content = written[first]
        target = next((content[name] for name in ("state_dict", "model") if name in content), content)
        target.update(semantic)
    for name, content in written.items():
        write_file(folder / name, content)
    return [folder / name for name in written]
