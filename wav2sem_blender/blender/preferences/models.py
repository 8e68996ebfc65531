# SPDX-License-Identifier: GPL-3.0-or-later
"""The models on this machine: list them, import one, verify its files, remove it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import bpy
from bpy.props import CollectionProperty, EnumProperty, StringProperty

from ... import leftovers
from ...assets import DEFAULT_MODEL
from ...errors import Text, UserError
from ...json_file import read_json
from ...pipeline.checkpoint_kinds import AUTO, CHECKPOINT_KINDS
from ...worker import environment
from ...worker.environment import WorkerEnvironment
from ...worker.probe import Report
from ...worker.runtime import in_words
from ...worker.task import TaskProcess
from .. import addon_preferences, compat
from ..animate import jobs, settings
from ..tasks import in_process
from ..tasks.task import why_wait_for_its_end
from ..translations import translated
from ..ui.widgets import AddonOperator
from . import python

IMPORT, VERIFY = "import", "verify"
BUNDLED = "default"
_CONFIG = "config.json"
_STAGING = ".importing"

KINDS = (
    (AUTO, "Automatic", "A model folder's config.json, or a checkpoint that its keys identify"),
    *((kind.name, kind.label, kind.description) for kind in CHECKPOINT_KINDS),
)

# Verify's last result for each model folder, and whether it is an error.
_verified: dict[str, tuple[str, bool]] = {}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model folder as its config.json describes it.

    Attributes:
        name: As the Animate panel offers it.
        folder: Its folder.
        engine: What runs it.
        license: The licence of its weights; empty when it states none.
        files: Names of its files.
        size_bytes: Its size on disk.
    """

    name: str
    folder: Path
    engine: str
    license: str
    files: tuple[str, ...]
    size_bytes: int


def known(context: bpy.types.Context) -> tuple[Model, ...]:
    """The bundled model and those of the models folder."""
    folder = models_folder(context)
    try:
        # The folder's time changes with its entries; a model inside never changes in place.
        changed_ns = folder.stat().st_mtime_ns if folder else 0
    except OSError:
        folder, changed_ns = None, 0
    return _models(folder, changed_ns)


def models_folder(context: bpy.types.Context) -> Path | None:
    """The models folder of the preferences."""
    chosen = addon_preferences.get(context).models_folder
    return Path(bpy.path.abspath(chosen)).absolute() if chosen else None


def verify_result(model: Model) -> tuple[str, bool]:
    """What Verify found, and whether that is an error; empty before it ran."""
    return _verified.get(str(model.folder), ("", False))


@lru_cache(maxsize=1)
def _models(folder: Path | None, _changed_ns: int) -> tuple[Model, ...]:
    found = [read(DEFAULT_MODEL, BUNDLED)]
    if folder is not None:
        found += [read(config.parent, config.parent.name) for config in sorted(folder.glob(f"*/{_CONFIG}"))]
    return tuple(model for model in found if model is not None)


def read(folder: Path, name: str) -> Model | None:
    """The model in a folder; None where the config.json is something else's."""
    try:
        config = read_json(folder / _CONFIG)
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
    """Raise UserError when the model is gone."""
    for model in known(context):
        if model.name == name:
            return model
    raise UserError('There is no model "{name}" any more.', name=name)


class WAV2SEM_OT_verify_model(AddonOperator, bpy.types.Operator):
    """Compare the model's files with their recorded hashes"""

    bl_idname = "wav2sem.verify_model"
    bl_label = "Verify"
    bl_options: ClassVar = {"INTERNAL"}

    name: StringProperty(name="Model", description="Name of the model", default=BUNDLED)  # type: ignore[valid-type]

    @classmethod
    def disabled_reason(cls, _context: bpy.types.Context) -> str:
        """One model is verified at a time."""
        return "A model is being verified" if in_process.current(VERIFY) is not None else ""

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Hash the files in another process."""
        try:
            model = _find(context, self.name)
            own, key = environment.embedded(), str(model.folder)

            def keep(_result: dict[str, Any], error: str) -> None:
                _verified[key] = (error, True) if error else ("All files match their recorded hashes", False)

            _verified[key] = "Reading the Files", False
            in_process.start(VERIFY, _command_line(own, "verify", key, text="Reading the Files"), keep)
        except (OSError, UserError) as error:
            return self._failed(error)
        return {"FINISHED"}


class WAV2SEM_OT_import_checkpoint(AddonOperator, bpy.types.Operator):
    """Add a model: a model folder's config.json, or a checkpoint of the original projects with all its files"""

    bl_idname = "wav2sem.import_checkpoint"
    bl_label = "Import Checkpoint"
    bl_options: ClassVar = {"INTERNAL"}

    filepath: StringProperty(name="File", description="Checkpoint to import", subtype="FILE_PATH")  # type: ignore[valid-type]
    files: CollectionProperty(type=bpy.types.OperatorFileListElement, options={"HIDDEN", "SKIP_SAVE"})  # type: ignore[valid-type]
    filter_glob: StringProperty(  # type: ignore[valid-type]
        default="*.pth;*.pt;*.tar;*.ckpt;*.npz;*.npy;*.obj;*.pkl;config.json", options={"HIDDEN"}
    )
    kind: EnumProperty(name="Kind", description="Kind of checkpoint", items=KINDS)  # type: ignore[valid-type]
    name: StringProperty(  # type: ignore[valid-type]
        name="Name", description="Name of the new model; the file's name if empty", options={"SKIP_SAVE"}
    )

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """It needs a folder to import into."""
        if in_process.current(IMPORT) is not None:
            return "A checkpoint is being imported"
        folder = models_folder(context)
        if folder is None:
            return "Choose a models folder first"
        return "" if folder.is_dir() else Text("The models folder {folder} does not exist", folder=folder)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> compat.Result:
        """Ask for the file."""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Convert it in another process into a folder aside, which is renamed when it is complete."""
        try:
            self._start(context)
        except (OSError, UserError) as error:
            return self._failed(error)
        return {"FINISHED"}

    def _start(self, context: bpy.types.Context) -> None:
        """Raise UserError or OSError when it cannot be imported."""
        file, folder = Path(bpy.path.abspath(self.filepath)), models_folder(context)
        assert folder is not None
        if not file.is_file():
            raise UserError("{file}: there is no such file. Choose a checkpoint.", file=file)
        is_model = file.name == _CONFIG
        source, name = (file.parent if is_model else file), self.name or _name_of(file)
        target, staging = folder / name, folder / f"{_STAGING}-{name}"
        if Path(name).name != name or name in ("", ".", "..", BUNDLED):
            raise UserError('"{name}" cannot be the name of a model. Choose another name.', name=name)
        if target.exists():
            raise UserError("{folder} exists already. Remove it first, or choose another name.", folder=target)
        # Only the original projects' files need torch.
        worker = environment.embedded() if is_model else _python_with_torch(context)
        leftovers.clear_folders(folder, f"{_STAGING}-", lambda _path: True)
        shutil.rmtree(staging, ignore_errors=True)
        kind = AUTO if is_model else self.kind
        further = (file.with_name(other.name) for other in self.files if other.name not in ("", file.name))
        beside = () if is_model else tuple(word for other in further for word in ("--with", str(other)))
        arguments = ("import", str(source), *beside, "--kind", kind, "--output", str(staging / name))
        try:
            staging.mkdir()
            held = leftovers.lock(staging)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                "{folder} cannot be written ({reason}). Choose another models folder.", folder=folder, reason=reason
            ) from error

        def take_over(_result: dict[str, Any], error: str) -> None:
            try:
                if not error:
                    (staging / name).rename(target)
            except OSError as failure:
                reason = failure.strerror or failure
                error = Text("{folder} cannot be created ({reason}).", folder=target, reason=reason)
            if error:
                python.show(Text("{file} was not imported. {error}", file=file.name, error=error), is_error=True)
            else:
                python.show(Text('Imported {file} as the model "{name}".', file=file.name, name=name))

        def clean_up() -> None:
            shutil.rmtree(staging, ignore_errors=True)
            leftovers.unlock(held)

        python.show("")
        try:
            title = Text("Importing {file}", file=file.name)
            in_process.start(IMPORT, _command_line(worker, *arguments, text=title), take_over, clean_up)
        except (OSError, UserError):
            clean_up()
            raise


class WAV2SEM_OT_remove_model(AddonOperator, bpy.types.Operator):
    """Delete the model's files from the models folder. This cannot be undone"""

    bl_idname = "wav2sem.remove_model"
    bl_label = "Remove Model"
    bl_options: ClassVar = {"INTERNAL"}

    name: StringProperty(name="Model", description="Name of the model")  # type: ignore[valid-type]

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Nothing may be running that uses the model."""
        if wait := why_wait_for_its_end():
            return wait
        return "" if models_folder(context) is not None else "Choose a models folder first"

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> compat.Result:
        """Ask for confirmation, with name and size."""
        try:
            model = _find(context, self.name)
        except UserError as error:
            return self._failed(error)
        text = Text(
            "{folder}: {n_files} files, {size}. This cannot be undone.",
            folder=model.folder,
            n_files=len(model.files),
            size=in_words(model.size_bytes),
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

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Delete the files that its config.json names, and its folder if nothing else is in it."""
        folder = models_folder(context)
        try:
            model = _find(context, self.name)
            if folder is None or model.folder.resolve().parent != folder.resolve():
                raise UserError("{folder} is not in the models folder, so it was not removed.", folder=model.folder)
            # The worker may hold its files open.
            jobs.shut_down()
            for file in reversed(model.files):
                (model.folder / file).unlink(missing_ok=True)
            others = [path.name for path in model.folder.iterdir()]
            if not others:
                model.folder.rmdir()
        except UserError as error:
            return self._failed(error)
        except OSError as error:
            return self._failed(
                Text(
                    "{folder} cannot be removed ({reason}). Close any program that uses it.",
                    folder=model.folder,
                    reason=error.strerror or error,
                )
            )
        finally:
            _models.cache_clear()
        _verified.pop(str(model.folder), None)
        done = Text("Removed the model {model}.", model=model.name)
        if others:
            names = ", ".join(others[:3])
            done = Text("Removed the model {model}. Its folder still holds {names}.", model=model.name, names=names)
        python.show(done)
        return {"FINISHED"}


class WAV2SEM_OT_refresh_models(bpy.types.Operator):
    """Reload the list of models"""

    bl_idname = "wav2sem.refresh_models"
    bl_label = "Refresh"
    bl_options: ClassVar = {"INTERNAL"}

    def execute(self, _context: bpy.types.Context) -> compat.Result:
        """Forget what was read from disk."""
        _models.cache_clear()
        _verified.clear()
        return {"FINISHED"}


def _python_with_torch(context: bpy.types.Context) -> WorkerEnvironment:
    """Raise UserError when the Python in use is known to have no torch."""
    answer = python.answer(context)
    if isinstance(answer, Report) and answer.missing_for_torch:
        raise UserError(
            "Importing a checkpoint of the original projects needs a Python with torch. Choose one, or install "
            "the torch runtime, above.",
        )
    return settings.worker_environment(context)


def _command_line(worker: WorkerEnvironment, *arguments: str, text: str) -> TaskProcess:
    return TaskProcess(worker.run("__main__", *arguments), worker.variables(), text)


def _name_of(file: Path) -> str:
    """A model's name from its file: "model" for model.pth.tar, the folder's name for a config.json."""
    stem = file.parent.name if file.name == _CONFIG else file.name.partition(".")[0]
    return re.sub(r"[^\w -]", "_", stem)


CLASSES = (
    WAV2SEM_OT_verify_model,
    WAV2SEM_OT_import_checkpoint,
    WAV2SEM_OT_remove_model,
    WAV2SEM_OT_refresh_models,
)
