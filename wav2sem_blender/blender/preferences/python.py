# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python and engine compute the animation: checking them, choosing another Python, installing what it needs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import bpy
from bpy.props import EnumProperty, StringProperty

from ...errors import Text, UserError, report
from ...worker import environment
from ...worker.environment import REQUIRED_MODULES, TORCH_MODULES, WorkerEnvironment
from ...worker.probe import Report
from ...worker.runtime import ALL, TORCH, Packages, Runtime
from ...worker.task import TaskProcess
from .. import addon_preferences, compat
from ..animate import jobs
from ..tasks import in_process
from ..tasks.task import why_wait_for_its_end
from ..ui.widgets import AddonOperator

PROBE, USE, INSTALL, MEASURE, REMOVE = "probe", "use", "install", "measure", "remove"
_RUNTIMES = tuple((packages.name, packages.title, "") for packages in ALL.values())
# torch loads in seconds, but on a cold disk or a busy machine it takes minutes.
_PROBE_LIMIT_S = 600.0
# Passed to worker.install; tests install a small package from a folder.
INSTALL_OPTIONS: tuple[str, ...] = ()
_NO_PLACE = "Only an installed extension has a folder for it"

_Asked = tuple[str, str]

# Each Python's report, or why there is none, by its path in the preferences and the device.
_answers: dict[_Asked, Report | str] = {}
_asking: _Asked | None = None
# Disk use of each unfinished runtime, by its name.
_unfinished_bytes: dict[str, int] = {}

# What the page says about the last action, and whether it is an error.
message: tuple[str, bool] = ("", False)


def runtime(packages: Packages) -> Runtime | None:
    """A runtime, installed or not; None where the add-on is not an extension."""
    folder = addon_preferences.runtime_folder(packages.name)
    return None if folder is None else Runtime(folder, packages)


def task_of(verb: str, packages: Packages) -> str:
    """The name of the task that installs, measures or removes a runtime."""
    return f"{verb} {packages.name}"


def is_online() -> bool:
    """Whether the user allows Blender to go online."""
    return bool(bpy.app.online_access)


def answer(context: bpy.types.Context) -> Report | str | None:
    """What the Python in use can do, or why it cannot be used; starts the check and returns None while it runs."""
    known = _answers.get(_to_ask(context))
    unknown = known is None or any(_unmeasured())
    if unknown and not bpy.app.timers.is_registered(check):
        # While drawing, nothing may start.
        bpy.app.timers.register(check, first_interval=0.01)
    return known


def unfinished_bytes(packages: Packages) -> int | None:
    """Disk use of an unfinished runtime; None while it is being measured."""
    return _unfinished_bytes.get(packages.name)


def check() -> None:
    """Start every check whose result is not known yet."""
    global _asking
    asked = _to_ask(bpy.context)
    if asked not in _answers and (in_process.current(PROBE) is None or _asking != asked):
        _asking = asked
        try:
            python, device = asked
            task = _probe(environment.from_python(python) if python else environment.embedded(), device)
        except (OSError, UserError) as error:
            _answers[asked] = report(error)
            in_process.redraw()
        else:
            in_process.start(PROBE, task, lambda result, error: _answers.update({asked: _understood(result, error)}))
    for made in _unmeasured():
        name, packages = task_of(MEASURE, made.packages), made.packages
        if in_process.current(name) is None:
            in_process.start(name, _installer(MEASURE, made.folder), functools.partial(_take_measure, packages))


def forget() -> None:
    """Check again when the page is drawn next."""
    _answers.clear()
    _unfinished_bytes.clear()
    in_process.redraw()


def end_tasks() -> None:
    """End the page's tasks."""
    in_process.shut_down()
    if bpy.app.timers.is_registered(check):
        bpy.app.timers.unregister(check)


def show(text: str, is_error: bool = False) -> None:
    """Show a message in the page."""
    global message
    message = text, is_error
    in_process.redraw()


def _to_ask(context: bpy.types.Context) -> _Asked:
    chosen = addon_preferences.get(context)
    return bpy.path.abspath(chosen.torch_python), chosen.device


def _probe(worker: WorkerEnvironment, device: str) -> TaskProcess:
    return TaskProcess(worker.run("worker.probe", device), worker.variables(), "Checking the Python", _PROBE_LIMIT_S)


def _understood(result: dict[str, Any], error: str) -> Report | str:
    if error:
        return error
    return Report(**result) if result else "It did not answer as a Python would. Choose another program."


def _installer(verb: str, target: Path, *options: str) -> TaskProcess:
    own = environment.embedded()
    return TaskProcess(own.run("worker.install", verb, str(target), *options), own.variables(), "Starting")


def _unmeasured() -> Iterator[Runtime]:
    """Unfinished runtimes whose disk use is not known."""
    for packages in ALL.values():
        is_known = packages.name in _unfinished_bytes or in_process.current(task_of(INSTALL, packages)) is not None
        made = runtime(packages)
        if not is_known and made is not None and made.is_unfinished:
            yield made


def _take_measure(packages: Packages, result: dict[str, Any], _error: str) -> None:
    _unfinished_bytes[packages.name] = int(result.get("size_bytes", 0))


class WAV2SEM_OT_use_python(AddonOperator, bpy.types.Operator):
    """Choose a Python with torch, transformers, soundfile and soxr. It is checked before it is used"""

    bl_idname = "wav2sem.use_python"
    bl_label = "Use This Python"
    bl_options: ClassVar = {"INTERNAL"}

    filepath: StringProperty(name="Python", description="Interpreter to use", subtype="FILE_PATH")  # type: ignore[valid-type]

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Why there is nothing to change."""
        return _no_preferences_reason(context)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> compat.Result:
        """Ask for the file."""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Check it; the preferences change once it has passed."""
        python, device = bpy.path.abspath(self.filepath), addon_preferences.get(context).device
        show("")

        def use(result: dict[str, Any], error: str) -> None:
            found = _understood(result, error)
            if isinstance(found, str):
                reason = found
            elif found.missing_for_torch:
                reason = missing_modules(found)
            elif not found.larger:
                reason = found.trouble
            else:
                _answers[(python, device)] = found
                _set_python(python)
                show(Text("{python} is now in use.", python=python))
                return
            show(Text("{python} is not used. {reason}", python=python, reason=reason), is_error=True)

        try:
            in_process.start(USE, _probe(environment.from_python(python), device), use)
        except (OSError, UserError) as error:
            return self._failed(error)
        return {"FINISHED"}


class WAV2SEM_OT_use_own_python(AddonOperator, bpy.types.Operator):
    """Go back to the bundled engine"""

    bl_idname = "wav2sem.use_own_python"
    bl_label = "Use Blender's Python"
    bl_options: ClassVar = {"INTERNAL"}

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Another Python must be in use."""
        if not addon_preferences.get(context).torch_python:
            return "Blender's Python is in use"
        return _no_preferences_reason(context)

    def execute(self, _context: bpy.types.Context) -> compat.Result:
        """Empty the field."""
        _set_python("")
        show("")
        return {"FINISHED"}


class WAV2SEM_OT_check_python(bpy.types.Operator):
    """Check the Python again, after installing something there"""

    bl_idname = "wav2sem.check_python"
    bl_label = "Check Again"
    bl_options: ClassVar = {"INTERNAL"}

    def execute(self, _context: bpy.types.Context) -> compat.Result:
        """Forget its report."""
        forget()
        if bpy.app.background:
            check()
        return {"FINISHED"}


class WAV2SEM_OT_copy_text(bpy.types.Operator):
    """Copy this command to the clipboard, to paste it into a terminal"""

    bl_idname = "wav2sem.copy_text"
    bl_label = "Copy Command"
    bl_options: ClassVar = {"INTERNAL"}

    text: StringProperty(name="Text", description="Text to copy")  # type: ignore[valid-type]

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Copy it."""
        context.window_manager.clipboard = self.text
        return {"FINISHED"}


class RuntimeOperator(AddonOperator):
    """Base of the buttons of a runtime."""

    bl_options: ClassVar = {"INTERNAL"}

    name: EnumProperty(name="Runtime", description="Which environment", items=_RUNTIMES, default=TORCH.name)  # type: ignore[valid-type]

    def _made(self) -> Runtime:
        """Raise UserError where there is no place for it, or where it is being changed."""
        packages = ALL[self.name]
        made = runtime(packages)
        if made is None:
            raise UserError(_NO_PLACE)
        # What is removed lies in one folder.
        changing = (task_of(INSTALL, packages), *(task_of(REMOVE, each) for each in ALL.values()))
        if any(in_process.current(name) is not None for name in changing):
            raise UserError("A runtime is being installed or removed. Wait until that is done.")
        return made


class WAV2SEM_OT_install_runtime(RuntimeOperator, bpy.types.Operator):
    """Create a Python environment in the extension's folder: with torch for larger models, or with faster-whisper"""

    bl_idname = "wav2sem.install_runtime"
    bl_label = "Install Runtime"

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """It needs online access and a folder."""
        if not is_online():
            return "Online access is off; allow it in Preferences > System > Network"
        return _no_change_reason(context)

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Start or continue the installation."""
        chosen = addon_preferences.get(context)
        try:
            made = self._made()
        except UserError as error:
            return self._failed(error)
        # A half-installed runtime must never be used.
        if chosen.torch_python == str(made.python):
            jobs.shut_down()
            _set_python("")
        show("")

        def use(result: dict[str, Any], error: str) -> None:
            forget()
            if error:
                show(error, is_error=True)
                return
            if made.packages is TORCH:
                _set_python(result["python"])
            show(Text("The {runtime} is installed and in use.", runtime=made.packages.title))

        index = ("--index", chosen.package_index) if chosen.package_index else ()
        options = ("--packages", made.packages.name, *index, *INSTALL_OPTIONS)
        try:
            in_process.start(task_of(INSTALL, made.packages), _installer(INSTALL, made.folder, *options), use)
        except (OSError, UserError) as error:
            return self._failed(error)
        return {"FINISHED"}


class WAV2SEM_OT_remove_runtime(RuntimeOperator, bpy.types.Operator):
    """Delete this runtime from the extension's folder"""

    bl_idname = "wav2sem.remove_runtime"
    bl_label = "Remove Runtime"

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Nothing may be using it."""
        return _no_change_reason(context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> compat.Result:
        """Ask for confirmation."""
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Move it away at once; a task deletes it."""
        try:
            made = self._made()
            if not made.folder.is_dir():
                raise UserError("There is no {runtime}.", runtime=made.packages.title)
        except UserError as error:
            return self._failed(error)
        if addon_preferences.get(context).torch_python == str(made.python):
            _set_python("")
        # The worker may hold its files open.
        jobs.shut_down()
        # This also deletes what an interrupted removal left.
        trash = made.folder.with_name(".removed")
        removed = functools.partial(_removed, made.packages)
        try:
            trash.mkdir(exist_ok=True)
            made.folder.rename(trash / uuid4().hex)
            in_process.start(task_of(REMOVE, made.packages), _installer(REMOVE, trash), removed)
        except UserError as error:
            return self._failed(error)
        except OSError as error:
            return self._failed(
                Text(
                    "{folder} cannot be removed ({reason}). Close any program that uses it.",
                    folder=made.folder,
                    reason=error.strerror or error,
                )
            )
        return {"FINISHED"}


def _removed(packages: Packages, _result: dict[str, Any], error: str) -> None:
    forget()
    show(error or Text("The {runtime} was removed.", runtime=packages.title), is_error=bool(error))


class WAV2SEM_OT_cancel_task(bpy.types.Operator):
    """Cancel this task. Downloads are kept, and the next attempt continues from there"""

    bl_idname = "wav2sem.cancel_task"
    bl_label = "Cancel"
    bl_options: ClassVar = {"INTERNAL"}

    name: StringProperty(name="Name", description="Name of the task")  # type: ignore[valid-type]

    def execute(self, _context: bpy.types.Context) -> compat.Result:
        """Cancel it, and forget what was known."""
        in_process.cancel(self.name)
        forget()
        show("Cancelled.")
        return {"FINISHED"}


def missing_modules(found: Report) -> Text:
    """Which modules a Python lacks, and the command that installs them."""
    modules = ", ".join(found.missing_for_torch)
    return Text("This Python lacks {modules}. Install it there: {command}", modules=modules, command=pip_command(found))


def pip_command(found: Report) -> str:
    """The command that installs what a Python lacks."""
    known = (*TORCH_MODULES, *REQUIRED_MODULES)
    return environment.pip_command(found.executable, [name for name in known if name in found.missing_for_torch])


def _set_python(python: str) -> None:
    chosen = addon_preferences.get(bpy.context)
    if chosen.torch_python != python:
        chosen.torch_python = python
        # Lets Blender save it, where it saves preferences automatically.
        bpy.context.preferences.is_dirty = True


def _no_preferences_reason(context: bpy.types.Context) -> str:
    return "" if addon_preferences.are_stored(context) else "The add-on is not installed, so it has no preferences"


def _no_change_reason(context: bpy.types.Context) -> str:
    if wait := why_wait_for_its_end():
        return wait
    if addon_preferences.runtime_folder(TORCH.name) is None:
        return _NO_PLACE
    return _no_preferences_reason(context)


CLASSES = (
    WAV2SEM_OT_use_python,
    WAV2SEM_OT_use_own_python,
    WAV2SEM_OT_check_python,
    WAV2SEM_OT_copy_text,
    WAV2SEM_OT_install_runtime,
    WAV2SEM_OT_remove_runtime,
    WAV2SEM_OT_cancel_task,
)
