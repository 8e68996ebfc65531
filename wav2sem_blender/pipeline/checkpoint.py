# SPDX-License-Identifier: GPL-3.0-or-later
"""A model folder: config.json + model.safetensors (+ encoder.onnx and semantic.onnx for the embedded engine).

config.json names the sha256 of every other file, so a damaged or mixed-up folder is refused before it can speak
nonsense. Reading needs numpy and safetensors only.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingFileError, UserError
from ..files import check_ours, replaced_folder

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ENCODER_ONNX, SEMANTIC_ONNX = "encoder.onnx", "semantic.onnx"
BASIS_KEY = "basis_KV3"
MADE_BY = "an import or export of a model"
NO_FACE = "it is a Wav2Sem encoder alone, without a face; fuse it into a face model by `python -m trainer finetune`"


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A transformers speech encoder: `kind` is "hubert" or "wav2vec2", `config` what differs from its base size."""

    kind: str
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Wav2SemConfig:
    """The Wav2Sem encoder (wav2vec 2.0 architecture) and the width of the sentence space it maps into."""

    config: Mapping[str, Any]
    target_dim: int


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """FaceFormer's decoder: 64-d at 30 fps for FLAME, 128-d at 25 fps for BIWI."""

    dim: int = 64
    heads: int = 4
    ffn_dim: int = 128
    period: int = 30
    fps: int = 30
    memory_per_frame: int = 1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if (self.fps, self.memory_per_frame) not in ((30, 1), (25, 2)):
            raise UserError(
                "decoder with {fps} fps and {memory_per_frame} memory frames: 30 fps with 1 or 25 fps with 2",
                fps=self.fps,
                memory_per_frame=self.memory_per_frame,
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that config.json says about a model, apart from the hashes of its files."""

    name: str
    encoder: EncoderConfig
    wav2sem: Wav2SemConfig | None
    decoder: DecoderConfig
    channels: tuple[str, ...]
    styles: tuple[str, ...]
    topology: str = "flame"
    basis_unit: str = "m"
    legacy_predict: bool = False
    license: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types only."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Raises ValueError for an unknown or missing key: a silent default would be another model."""
        fields: dict[str, Any] = dict(data)
        try:
            wav2sem = fields["wav2sem"]
            fields["encoder"] = EncoderConfig(**fields["encoder"])
            fields["wav2sem"] = None if wav2sem is None else Wav2SemConfig(**wav2sem)
            fields["decoder"] = DecoderConfig(**fields["decoder"])
            fields["channels"], fields["styles"] = tuple(fields["channels"]), tuple(fields["styles"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise UserError("its model description does not fit this version: {error}", error=error) from error


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """An opened, verified folder with weights."""

    path: Path
    weights_sha256: str
    files: frozenset[str]

    def tensors(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Weights whose names start with `prefix`, the prefix removed; half-precision storage becomes float32."""
        from safetensors import safe_open

        with safe_open(self.path / WEIGHTS_FILE, framework="numpy") as file:
            return {
                key[len(prefix) :]: _as_float32(file.get_tensor(key))
                for key in file.keys()  # noqa: SIM118 (a file handle, not a dict)
                if key.startswith(prefix)
            }


@dataclass(frozen=True, kw_only=True)
class Wav2SemFolder(_Folder):
    """A Wav2Sem encoder alone: sentence vectors, no face."""

    config: Wav2SemConfig


@dataclass(frozen=True, kw_only=True)
class ModelFolder(_Folder):
    """A model that animates."""

    config: ModelConfig

    @classmethod
    def open(cls, path: str | Path) -> ModelFolder:
        """As `open_folder`; ValueError for a Wav2Sem alone too."""
        folder = open_folder(path)
        if isinstance(folder, Wav2SemFolder):
            raise UserError("{path}: {no_face}", path=path, no_face=NO_FACE)
        return folder

    @property
    def has_onnx(self) -> bool:
        """Whether the embedded engine can run this model."""
        return ENCODER_ONNX in self.files

    def basis(self) -> np.ndarray | None:
        """The channels' vertex displacements (K, V, 3) in the config's `basis_unit`, or None."""
        return self.tensors(BASIS_KEY).get("")


def open_folder(path: str | Path) -> ModelFolder | Wav2SemFolder:
    """Read and verify a model folder, or one with a Wav2Sem alone.

    Raises:
        FileNotFoundError: no model there, or a file of it is missing.
        ValueError: another format version, an unreadable config, or a file that is not the one described.
    """
    folder = Path(path)
    config_path = folder / CONFIG_FILE
    if not config_path.is_file():
        raise MissingFileError("{folder}: no model here (config.json is missing)", folder=folder)
    try:
        data = json.loads(config_path.read_text(encoding="utf-8"))
        kind = "wav2sem" if "wav2sem" in data else "model"
        version, description, files = data["format_version"], data[kind], data["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            "{config_path}: not a Wav2Sem model description ({error})",
            config_path=config_path,
            error=error,
        ) from error
    if version != FORMAT_VERSION:
        raise UserError(
            "{config_path}: format version {version}, this release reads version {format_version}; export the "
            "model again with a matching release",
            config_path=config_path,
            version=version,
            format_version=FORMAT_VERSION,
        )
    for name, expected in files.items():
        if Path(name).name != name:
            raise UserError(
                "{config_path}: {name!r} is no file of this folder; copy the whole model folder again",
                config_path=config_path,
                name=name,
            )
        if not (folder / name).is_file():
            raise MissingFileError("{folder}: missing; copy the whole model folder again", folder=folder / name)
        if sha256(folder / name) != expected:
            raise UserError(
                "{folder}: damaged (its sha256 differs from config.json); copy it again",
                folder=folder / name,
            )
    weights_sha256, names = files[WEIGHTS_FILE], frozenset(files)
    try:
        if kind == "wav2sem":
            wav2sem = Wav2SemConfig(**description)
            return Wav2SemFolder(path=folder, config=wav2sem, weights_sha256=weights_sha256, files=names)
        model = ModelConfig.from_json(description)
        return ModelFolder(path=folder, config=model, weights_sha256=weights_sha256, files=names)
    except (TypeError, ValueError) as error:
        raise UserError("{config_path}: {error}", config_path=config_path, error=error) from error


def _as_float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_model(
    folder: str | Path, config: ModelConfig, tensors: Mapping[str, np.ndarray], onnx: Mapping[str, Path] | None = None
) -> ModelFolder:
    """Write a model folder; a model that is there is replaced, only when the new one is complete.

    Args:
        folder: target; its parent is created.
        tensors: the torch modules' state dict as numpy, plus `basis_KV3` where there is a basis.
        onnx: file name -> exported file, copied in.
    """
    _write_folder(Path(folder), {"model": config.to_json()}, tensors, onnx or {})
    return ModelFolder.open(folder)


def save_wav2sem(folder: str | Path, config: Wav2SemConfig, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a folder with a Wav2Sem encoder and nothing else: it gives sentence vectors and animates nothing."""
    _write_folder(Path(folder), {"wav2sem": dataclasses.asdict(config)}, tensors, {})


def _write_folder(
    folder: Path, content: Mapping[str, Any], tensors: Mapping[str, np.ndarray], onnx: Mapping[str, Path]
) -> None:
    from safetensors.numpy import save_file

    with replaced_folder(folder, MADE_BY, model_files, CONFIG_FILE) as new:
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, new / WEIGHTS_FILE)
        (new / WEIGHTS_FILE).chmod(0o644)  # safetensors makes it readable by its owner alone
        for name, source in onnx.items():
            shutil.copyfile(source, new / name)
        files = {path.name: sha256(path) for path in sorted(new.iterdir())}
        description = {"format_version": FORMAT_VERSION, **content, "files": files}
        (new / CONFIG_FILE).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def copy_folder(source: str | Path, folder: str | Path) -> None:
    """Copy a model folder, or one with a Wav2Sem alone: what its config.json names, and nothing else.

    Raises:
        FileNotFoundError, ValueError: As in `open_folder`, of the source or of the copy.
    """
    opened = open_folder(source)
    with replaced_folder(Path(folder), MADE_BY, model_files, CONFIG_FILE) as new:
        for name in (*opened.files, CONFIG_FILE):
            shutil.copyfile(opened.path / name, new / name)
        open_folder(new)


def model_files(folder: Path) -> tuple[str, ...]:
    """The names in a folder that make it a model of ours; none where its config.json is not one that we wrote."""
    try:
        description = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if "format_version" not in description or not {"model", "wav2sem"} & set(description):
            return ()
        return (CONFIG_FILE, *map(glob.escape, description["files"]))
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def check_replaceable(folder: Path) -> None:
    """Before a long conversion: raises UserError where `folder` holds what is no model of ours, alone."""
    check_ours(folder, MADE_BY, model_files)
