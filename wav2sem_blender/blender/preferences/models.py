# SPDX-License-Identifier: GPL-3.0-or-later
"""The models on this machine, for the preferences: list, import, compare with the recorded hashes, remove."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import bpy
from bpy.props import EnumProperty, StringProperty

from ...assets import DEFAULT_MODEL
from ...errors import Text, UserError
from ...worker import environment
from ...worker.chore import Chore
from ...worker.environment import WorkerEnvironment
from ...worker.probe import Report
from ...worker.runtime import in_words
from .. import addon_preferences
from ..animate import jobs, settings
from ..tasks import in_process, running
from ..translations import translated
from ..ui.widgets import AddonOperator
from . import python

IMPORT, VERIFY = "import", "verify"
BUNDLED = "default"
_CONFIG = "config.json"
_STAGING = ".importing"

KINDS = (
    (
        "auto",
        "Automatic",
        "A model folder's config.json, or a checkpoint whose keys tell what it is",
    ),
    ("faceformer-vocaset", "FaceFormer VOCASET", "FaceFormer's vocaset.pth"),
    ("faceformer-biwi", "FaceFormer BIWI", "FaceFormer's biwi.pth"),
    ("wav2sem", "Wav2Sem", "Wav2Sem's model.pth.tar: an encoder without a face"),
    ("codetalker-wav2sem", "CodeTalker with Wav2Sem", "The Wav2Sem inside a CodeTalker stage-2 file"),
)

# Verify's and import's last sentence of each model, and whether it is a complaint.
_said: dict[str, tuple[str, bool]] = {}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model folder as its config.json describes it.

    Attributes:
        name: As the Speech panel offers it.
        folder: Where it is.
        engine: What can run it.
        license: Of its weights; empty when it states none.
        files: What it consists of.
        size_bytes: On the disk.
    """

    name: str
    folder: Path
    engine: str
    license: str
    files: tuple[str, ...]
    size_bytes: int


def of(context: bpy.types.Context) -> tuple[Model, ...]:
    """The bundled model and those of the models folder."""
    folder = place(context)
    try:
        # A folder that gains or loses an entry has another time; what is inside a model never changes in place.
        changed_ns = folder.stat().st_mtime_ns if folder else 0
    except OSError:
        folder, changed_ns = None, 0
    return _models(folder, changed_ns)


def place(context: bpy.types.Context) -> Path | None:
    """The models folder of the preferences."""
    chosen = addon_preferences.get(context).models_folder
    return Path(bpy.path.abspath(chosen)).absolute() if chosen else None


def said(model: Model) -> tuple[str, bool]:
    """What Verify found, and whether that is bad; nothing when it was not asked."""
    return _said.get(str(model.folder), ("", False))


@lru_cache(maxsize=1)
def _models(folder: Path | None, _changed_ns: int) -> tuple[Model, ...]:
    found = [read(DEFAULT_MODEL, BUNDLED)]
    if folder is not None:
        found += [read(config.parent, config.parent.name) for config in sorted(folder.glob(f"*/{_CONFIG}"))]
    return tuple(model for model in found if model is not None)


def read(folder: Path, name: str) -> Model | None:
    """A model folder; None for a folder of something else that has a config.json."""
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        files = tuple(name for name in config["files"] if Path(name).name == name)
        if "wav2sem" in config:
            engine, license_name = "a Wav2Sem without a face", ""
        else:
            engine = "ONNX Runtime or torch" if "encoder.onnx" in files else "torch"
            license_name = str(config["model"].get("license", ""))
        size_bytes = sum((folder / file).stat().st_size for file in (_CONFIG, *files) if (folder / file).is_file())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Model(
        name=name, folder=folder, engine=engine, license=license_name, files=(_CONFIG, *files), size_bytes=size_bytes
    )


def _find(context: bpy.types.Context, name: str) -> Model:
    """Raises ValueError when it is gone."""
    for model in of(context):
        if model.name == name:
            return model
    raise UserError('There is no model "{name}" any more.', name=name)


class WAV2SEM_OT_verify_model(AddonOperator, bpy.types.Operator):
    """Compare the model's files with the hashes that were recorded when it was made"""

    bl_idname = "wav2sem.verify_model"
    bl_label = "Verify"
    bl_options: ClassVar = {"INTERNAL"}

    name: StringProperty(name="Model", description="Its name", default=BUNDLED)  # type: ignore[valid-type]

    @classmethod
    def disabled_reason(cls, _context: bpy.types.Context) -> str:
        """One at a time."""
        return "A model is being verified" if in_process.current(VERIFY) is not None else ""

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Read the files beside the interface."""
        try:
            model = _find(context, self.name)
            own, key = environment.embedded(), str(model.folder)

            def show(_result: dict[str, Any], error: str) -> None:
                _said[key] = (error, True) if error else ("Every file is as recorded", False)

            _said[key] = "Reading the Files", False
            in_process.start(VERIFY, _command_line(own, "verify", key, text="Reading the Files"), show)
        except (ValueError, OSError) as error:
            return self._failed(error)
        return {"FINISHED"}


class WAV2SEM_OT_import_checkpoint(AddonOperator, bpy.types.Operator):
    """Add a model to the models folder: a model folder's config.json, or a checkpoint of the original projects"""

    bl_idname = "wav2sem.import_checkpoint"
    bl_label = "Import Checkpoint"
    bl_options: ClassVar = {"INTERNAL"}

    filepath: StringProperty(name="File", description="The checkpoint", subtype="FILE_PATH")  # type: ignore[valid-type]
    filter_glob: StringProperty(default="*.pth;*.pt;*.tar;config.json", options={"HIDDEN"})  # type: ignore[valid-type]
    kind: EnumProperty(name="Kind", description="What the file is", items=KINDS)  # type: ignore[valid-type]
    name: StringProperty(  # type: ignore[valid-type]
        name="Name", description="Of the model in the panel; empty for the file's", options={"SKIP_SAVE"}
    )

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """A folder to import into."""
        if in_process.current(IMPORT) is not None:
            return "A checkpoint is being imported"
        folder = place(context)
        if folder is None:
            return "Choose a models folder first"
        return "" if folder.is_dir() else Text("The models folder {folder} does not exist", folder=folder)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        """Ask for the file."""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Convert it beside the interface, aside; what is complete takes its place."""
        try:
            self._start(context)
        except (ValueError, OSError) as error:
            return self._failed(error)
        return {"FINISHED"}

    def _start(self, context: bpy.types.Context) -> None:
        """Raises ValueError or OSError when it cannot be."""
        file, folder = Path(bpy.path.abspath(self.filepath)), place(context)
        assert folder is not None
        if not file.is_file():
            raise UserError("{file}: there is no such file. Choose a checkpoint.", file=file)
        is_model = file.name == _CONFIG
        source, name = (file.parent if is_model else file), self.name or _name_of(file)
        target, staging = folder / name, folder / f"{_STAGING}-{name}"
        if Path(name).name != name or name in ("", ".", "..", BUNDLED):
            raise UserError('"{name}" is no name for a model. Give it another one.', name=name)
        if target.exists():
            raise UserError("{target} exists. Remove it first, or give the new model another name.", target=target)
        # Only the conversion of foreign files needs torch.
        worker = environment.embedded() if is_model else _python_with_torch(context)
        shutil.rmtree(staging, ignore_errors=True)
        kind = "auto" if is_model else self.kind
        arguments = ("import", str(source), "--kind", kind, "--output", str(staging / name))
        try:
            staging.mkdir()
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                "{folder} cannot be written ({reason}). Choose another models folder.",
                folder=folder,
                reason=reason,
            ) from error

        def put(_result: dict[str, Any], error: str) -> None:
            try:
                if not error:
                    (staging / name).rename(target)
            except OSError as failure:
                error = Text(
                    "{target} cannot be made ({reason}).",
                    target=target,
                    reason=failure.strerror or failure,
                )
            outcome = (
                Text("{file} is not imported. {error}", file=file.name, error=error)
                if error
                else Text(
                    "{file} is now the model {name}.",
                    file=file.name,
                    name=name,
                )
            )
            python.say(outcome, complaint=bool(error))

        def clean_up() -> None:
            shutil.rmtree(staging, ignore_errors=True)

        python.say("")
        try:
            in_process.start(
                IMPORT, _command_line(worker, *arguments, text=Text("Importing {file}", file=file.name)), put, clean_up
            )
        except OSError:
            clean_up()
            raise


class WAV2SEM_OT_remove_model(AddonOperator, bpy.types.Operator):
    """Delete the model's files from the models folder; this cannot be undone"""

    bl_idname = "wav2sem.remove_model"
    bl_label = "Remove Model"
    bl_options: ClassVar = {"INTERNAL"}

    name: StringProperty(name="Model", description="Its name")  # type: ignore[valid-type]

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Only what lies in the models folder, and what nobody is using."""
        if wait := running.why_wait_for_its_end():
            return wait
        return "" if place(context) is not None else "Choose a models folder first"

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask first, with the name and the size."""
        try:
            model = _find(context, self.name)
        except ValueError as error:
            return self._failed(error)
        text = Text(
            "{folder}: {n_files} files, {in_words}. This cannot be undone.",
            folder=model.folder,
            n_files=len(model.files),
            in_words=in_words(model.size_bytes),
        )
        manager = context.window_manager
        return manager.invoke_confirm(
            self,
            event,
            title=translated(Text('Delete the Model "{model}"?', model=model.name)),
            message=translated(text),
            confirm_text="Delete",
            icon="WARNING",
        )

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Delete what its config.json names, and its folder when nothing else is in it."""
        folder = place(context)
        try:
            model = _find(context, self.name)
            if folder is None or model.folder.resolve().parent != folder.resolve():
                raise UserError("{folder} is not in the models folder, so it is left alone.", folder=model.folder)
            # It may hold the model's files open.
            jobs.shut_down()
            for file in reversed(model.files):
                (model.folder / file).unlink(missing_ok=True)
            others = [path.name for path in model.folder.iterdir()]
            if not others:
                model.folder.rmdir()
        except ValueError as error:
            return self._failed(error)
        except OSError as error:
            return self._failed(
                Text(
                    "{folder} cannot be removed ({reason}). Close what uses it.",
                    folder=model.folder,
                    reason=error.strerror or error,
                )
            )
        finally:
            _models.cache_clear()
        _said.pop(str(model.folder), None)
        kept = Text(" Its folder stays, because of {names}.", names=", ".join(others[:3])) if others else ""
        python.say(Text("{model} is removed.{kept}", model=model.name, kept=kept))
        return {"FINISHED"}


class WAV2SEM_OT_refresh_models(bpy.types.Operator):
    """Read the models folder again"""

    bl_idname = "wav2sem.refresh_models"
    bl_label = "Refresh"
    bl_options: ClassVar = {"INTERNAL"}

    def execute(self, _context: bpy.types.Context) -> set[str]:
        """Forget what was read."""
        _models.cache_clear()
        _said.clear()
        return {"FINISHED"}


def _python_with_torch(context: bpy.types.Context) -> WorkerEnvironment:
    """Raises ValueError when the Python in use is known to have none."""
    answer = python.answer(context)
    if isinstance(answer, Report) and answer.missing_for_torch:
        raise UserError(
            "Importing a checkpoint of the original projects needs a Python with torch. Choose one, or install "
            "the torch runtime, above.",
        )
    return settings.worker_environment(context)


def _command_line(worker: WorkerEnvironment, *arguments: str, text: str) -> Chore:
    return Chore(worker.run("__main__", *arguments), worker.variables(), text)


def _name_of(file: Path) -> str:
    """A model's name from its file: model.pth.tar in Wav2Sem is "model", a config.json has its folder's name."""
    stem = file.parent.name if file.name == _CONFIG else file.name.partition(".")[0]
    return re.sub(r"[^\w -]", "_", stem)


CLASSES = (
    WAV2SEM_OT_verify_model,
    WAV2SEM_OT_import_checkpoint,
    WAV2SEM_OT_remove_model,
    WAV2SEM_OT_refresh_models,
)
