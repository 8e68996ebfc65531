# SPDX-License-Identifier: GPL-3.0-or-later
"""The preferences' page: listing, importing and removing models, choosing a Python, installing the torch runtime.

In background mode a task is waited for, so each button is done when it returns.
"""

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest

from wav2sem_blender.assets import DEFAULT_MODEL
from wav2sem_blender.blender import addon_preferences as stored
from wav2sem_blender.blender.animate import estimate, settings
from wav2sem_blender.blender.preferences import models as model_folders
from wav2sem_blender.blender.preferences import page
from wav2sem_blender.blender.preferences import python as runtime
from wav2sem_blender.blender.tasks import in_process
from wav2sem_blender.errors import Text, UserError
from wav2sem_blender.worker import environment
from wav2sem_blender.worker.probe import Report
from wav2sem_blender.worker.runtime import RECOGNISER, TORCH, Runtime
from wav2sem_blender.worker.task import TaskProcess

FULL = Report(
    python="3.13.1",
    executable="/opt/python",
    versions={"torch": "2.14.1"},
    missing=[],
    missing_for_torch=[],
    bundled="ONNX Runtime 1.31.1 on the CPU",
    larger="torch 2.14.1 on NVIDIA H100 (CUDA)",
)
BARE = Report(
    python="3.13.1", executable="/opt/python", versions={}, missing=[], missing_for_torch=["torch", "transformers"]
)


@pytest.fixture(autouse=True)
def nothing_known():
    yield
    runtime.forget()
    runtime.show("")
    model_folders._models.cache_clear()
    model_folders._verified.clear()
    assert not in_process.any_running()


@pytest.fixture
def models(addon_preferences, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    addon_preferences.models_folder = str(folder)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The extension's folder for the torch runtime."""
    monkeypatch.setattr(stored, "runtime_folder", lambda name: tmp_path / "user" / name)
    monkeypatch.setattr(runtime, "is_online", lambda: True)
    return tmp_path / "user" / TORCH.name


def write_model(folder: Path, weights: bytes = b"four") -> Path:
    """A Wav2Sem of four bytes, which is enough for files and hashes."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    files = {"model.safetensors": hashlib.sha256(b"four").hexdigest()}
    config = {"format_version": 1, "wav2sem": {"config": {}, "target_dim": 4}, "files": files}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def names() -> list[str]:
    return [model.name for model in model_folders.known(bpy.context)]


class TestModels:
    def test_the_bundled_one_is_listed_and_verified(self, addon_preferences):
        (model,) = model_folders.known(bpy.context)
        assert model.name == "default" and model.folder == DEFAULT_MODEL
        assert model.engine == "ONNX Runtime or torch" and model.license.startswith("CC-BY-4.0")
        assert model.size_bytes == sum(path.stat().st_size for path in model.folder.iterdir() if path.is_file())
        assert bpy.ops.wav2sem.verify_model(name="default") == {"FINISHED"}
        assert model_folders.verify_result(model) == ("All files match their recorded hashes", False)

    def test_a_damaged_one_is_named(self, models):
        write_model(models / "broken", b"five")
        bpy.ops.wav2sem.verify_model(name="broken")
        text, is_error = model_folders.verify_result(model_folders.known(bpy.context)[1])
        assert is_error and "model.safetensors: damaged" in text

    def test_folders_of_something_else_are_not_listed(self, models):
        for name, text in (("web", '{"files": 3}'), ("list", "[]"), ("text", "hello")):
            (models / name).mkdir()
            (models / name / "config.json").write_text(text)
        assert names() == ["default"]

    @pytest.mark.parametrize(
        "content",
        [
            "[" * 100_000, '{"model": ' * 5000, "null", "NaN", '{"files": 3, "model": {}}',
            '{"files": [3], "model": {}}', '{"files": {}, "model": []}', '{"files": {"\\u0000": ""}, "model": {}}',
            '{"files": {}, "model": 7}',
        ],
    )  # fmt: skip
    def test_whatever_a_stranger_wrote_the_list_is_drawn(self, models, content):
        (models / "odd").mkdir()
        (models / "odd" / "config.json").write_text(content)
        assert "default" in names()
        assert settings.style_names(bpy.context, "odd") == []
        assert isinstance(settings.tongue_problem(bpy.context, "odd"), str)
        assert estimate.run_seconds(bpy.context, "odd", "cpu", 5.0) is None

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
    def test_a_pipe_does_not_hang_the_list(self, models):
        (models / "odd").mkdir()
        os.mkfifo(models / "odd" / "config.json")
        assert "odd" not in names()
        assert settings.style_names(bpy.context, "odd") == []

    def test_a_model_folder_is_imported_whole(self, models, tmp_path):
        source = write_model(tmp_path / "elsewhere" / "phones")
        assert bpy.ops.wav2sem.import_checkpoint(filepath=str(source / "config.json")) == {"FINISHED"}
        assert names() == ["default", "phones"]
        assert [path.name for path in models.iterdir()] == ["phones"], "the staging folder is left"
        assert runtime.message == ('Imported config.json as the model "phones".', False)
        with pytest.raises(RuntimeError, match="exists already. Remove it first"):
            bpy.ops.wav2sem.import_checkpoint(filepath=str(source / "config.json"))
        bpy.ops.wav2sem.import_checkpoint(filepath=str(source / "config.json"), name="other")
        assert names() == ["default", "other", "phones"]

    @pytest.mark.parametrize("end", [lambda: in_process.cancel(model_folders.IMPORT), runtime.end_tasks])
    def test_a_cancelled_import_leaves_nothing_aside(self, models, tmp_path, monkeypatch, end):
        source = write_model(tmp_path / "elsewhere" / "phones")
        monkeypatch.setattr(in_process, "wait", lambda name: None)  # as with a window
        monkeypatch.setattr(
            model_folders,
            "_command_line",
            lambda *_, text: TaskProcess([sys.executable, "-c", "import time; time.sleep(600)"], os.environ, text),
        )
        bpy.ops.wav2sem.import_checkpoint(filepath=str(source / "config.json"))
        assert [path.name for path in models.iterdir()] == [".importing-phones"]
        end()
        assert list(models.iterdir()) == []

    def test_a_damaged_one_is_not_imported(self, models, tmp_path):
        source = write_model(tmp_path / "elsewhere" / "phones", b"five")
        bpy.ops.wav2sem.import_checkpoint(filepath=str(source / "config.json"))
        text, is_error = runtime.message
        assert is_error and "model.safetensors: damaged" in text
        assert list(models.iterdir()) == []

    def test_a_folder_that_cannot_be_written_is_told_with_the_remedy(self, models, tmp_path, monkeypatch):
        source = write_model(tmp_path / "elsewhere" / "phones")
        monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Denied")))
        with pytest.raises(RuntimeError, match=r"models cannot be written \(Denied\)\. Choose another models folder"):
            bpy.ops.wav2sem.import_checkpoint(filepath=str(source / "config.json"))

    def test_a_name_cannot_lead_out_of_the_folder(self, models, tmp_path):
        source = write_model(tmp_path / "elsewhere" / "phones")
        for name in ("../phones", "..", "default"):
            with pytest.raises(RuntimeError, match="cannot be the name of a model"):
                bpy.ops.wav2sem.import_checkpoint(filepath=str(source / "config.json"), name=name)

    def test_foreign_checkpoints_need_torch(self, models, tmp_path):
        runtime._answers[("", "auto")] = BARE
        (tmp_path / "vocaset.pth").write_bytes(b"x")
        with pytest.raises(RuntimeError, match="needs a Python with torch"):
            bpy.ops.wav2sem.import_checkpoint(filepath=str(tmp_path / "vocaset.pth"))
        assert list(models.iterdir()) == []

    def test_further_selected_files_come_along(self, models, tmp_path, monkeypatch):
        monkeypatch.setattr(model_folders, "_python_with_torch", lambda _context: environment.embedded())
        commands = []

        def refuse(_worker, *arguments, text):
            commands.append(arguments)
            raise UserError("not here")

        monkeypatch.setattr(model_folders, "_command_line", refuse)
        for name in ("stage1.pth", "stage2.pth"):
            (tmp_path / name).write_bytes(b"x")
        files = [{"name": "stage1.pth"}, {"name": "stage2.pth"}]
        with pytest.raises(RuntimeError, match="not here"):
            bpy.ops.wav2sem.import_checkpoint(filepath=str(tmp_path / "stage2.pth"), files=files)
        assert commands[0][1:4] == (str(tmp_path / "stage2.pth"), "--with", str(tmp_path / "stage1.pth"))

    def test_without_a_models_folder_nothing_is_imported(self, addon_preferences):
        assert model_folders.WAV2SEM_OT_import_checkpoint.disabled_reason(bpy.context) == "Choose a models folder first"
        addon_preferences.models_folder = "/nowhere"
        assert "/nowhere does not exist" in model_folders.WAV2SEM_OT_import_checkpoint.disabled_reason(bpy.context)
        assert names() == ["default"]

    def test_removing_takes_the_models_files_and_no_others(self, models):
        for name in ("one", "two"):
            write_model(models / name)
        (models / "two" / "notes.txt").write_text("mine")
        for name in ("one", "two"):
            assert bpy.ops.wav2sem.remove_model(name=name) == {"FINISHED"}
        assert [path.relative_to(models).as_posix() for path in models.rglob("*")] == ["two", "two/notes.txt"]
        assert runtime.message == ("Removed the model two. Its folder still holds notes.txt.", False)
        assert names() == ["default"]

    def test_what_cannot_be_removed_is_told_with_the_remedy(self, models, monkeypatch):
        write_model(models / "one")
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "In use")))
        with pytest.raises(RuntimeError, match=r"one cannot be removed \(In use\)\. Close any program that uses it\."):
            bpy.ops.wav2sem.remove_model(name="one")

    def test_the_bundled_model_and_linked_folders_stay(self, models, tmp_path):
        with pytest.raises(RuntimeError, match="is not in the models folder"):
            bpy.ops.wav2sem.remove_model(name="default")
        assert (DEFAULT_MODEL / "config.json").is_file()
        linked = write_model(tmp_path / "elsewhere" / "phones")
        (models / "linked").symlink_to(linked, target_is_directory=True)
        with pytest.raises(RuntimeError, match="is not in the models folder"):
            bpy.ops.wav2sem.remove_model(name="linked")
        assert (linked / "model.safetensors").is_file()


class TestEngineLines:
    def test_what_is_in_use(self):
        lines = page.engine_lines(FULL, own_python=False)
        assert lines == [
            ("CHECKMARK", "Bundled model: ONNX Runtime 1.31.1 on the CPU"),
            ("CHECKMARK", "Other models: torch 2.14.1 on NVIDIA H100 (CUDA)"),
        ]
        assert page.engine_lines(None, own_python=True)[0][0] == "TIME"
        assert page.engine_lines("/x: there is no such Python.", True)[0][0] == "ERROR"

    def test_what_is_missing_and_the_remedy(self):
        assert "Other models need a Python with torch" in page.engine_lines(BARE, own_python=True)[-1][1]
        icon, text = page.engine_lines(BARE, own_python=False)[-1]
        assert icon == "ERROR" and text.startswith("This Python lacks torch, transformers.")
        assert text.endswith('"/opt/python" -m pip install torch transformers')


class Layout:
    """Stands in for Blender's layout: checks each call against the real parameters and keeps the texts."""

    FUNCTIONS = bpy.types.UILayout.bl_rna.functions

    def __init__(self, texts: list[str]):
        self.texts = texts

    def __getattr__(self, name):
        parameters = self.FUNCTIONS[name].parameters

        def call(*given, **options):
            assert set(options) <= set(parameters.keys()), name
            assert options.get("icon", "NONE") in self.FUNCTIONS["label"].parameters["icon"].enum_items
            if name == "prop":
                assert given[1] in given[0].bl_rna.properties
                self.texts.append(given[1])
            elif name == "operator":
                operator = getattr(bpy.ops.wav2sem, given[0].partition(".")[2]).get_rna_type()
                self.texts.append(options.get("text", operator.name))
                return SimpleNamespace()
            elif "text" in options:
                self.texts.append(options["text"])
            return Layout(self.texts)

        return call


def drawn(addon_preferences) -> str:
    """All texts of the page."""
    texts: list[str] = []
    page.draw_page(Layout(texts), bpy.context, addon_preferences)
    return "\n".join(texts)


class TestPage:
    def test_a_fresh_installation_offline(self, addon_preferences, place, monkeypatch):
        runtime._answers[("", "auto")] = replace(BARE, bundled=FULL.bundled)
        monkeypatch.setattr(runtime, "is_online", lambda: False)
        page = drawn(addon_preferences)
        for text in (
            "Bundled model: ONNX Runtime 1.31.1 on the CPU",
            "Install Torch Runtime",
            "Install Recogniser Runtime",
            "faster-whisper for",
            "to download and",
            "Allow Online Access",
            "default (bundled)",
            "CC-BY-4.0",
            "Choose a models folder to import into",
        ):
            assert text.lower() in page.lower(), page

    def test_the_runtimes_states(self, addon_preferences, place, monkeypatch):
        runtime._answers[("", "auto")] = FULL
        made = Runtime(place)
        made.python.parent.mkdir(parents=True)
        runtime._take_measure(TORCH, {"size_bytes": 2_000_000_000}, "")
        page = drawn(addon_preferences)
        assert "stopped after 2.0 GB; you can continue it" in page and "Continue Installation\nRemove" in page
        made.python.write_bytes(b"")
        made.set_complete()
        page = drawn(addon_preferences)
        assert "The Torch Runtime is installed: 1 MB in" in page and "Use It\nRemove" in page
        monkeypatch.setattr(Runtime, "is_outdated", True)
        assert "Update\nRemove" in drawn(addon_preferences)
        task = TaskProcess([sys.executable, "-c", "import time; time.sleep(600)"], os.environ, "Downloading torch")
        installing = runtime.task_of(runtime.INSTALL, TORCH)
        in_process._running[installing] = in_process._Running(task, lambda result, error: None)
        try:
            page = drawn(addon_preferences)
            assert "Downloading torch   0:0" in page and "Cancel" in page and "Update" not in page
        finally:
            in_process.cancel(installing)

    def test_a_chosen_python_without_torch(self, addon_preferences, place):
        addon_preferences.torch_python = "/opt/python"
        runtime._answers[("/opt/python", "auto")] = BARE
        page = drawn(addon_preferences)
        assert "This Python lacks torch" in page and "Copy the Command" in page


class TestPython:
    def test_one_without_torch_is_not_used(self, addon_preferences, tmp_path, monkeypatch):
        says(monkeypatch, BARE)
        assert bpy.ops.wav2sem.use_python(filepath=sys.executable) == {"FINISHED"}
        text, is_error = runtime.message
        assert is_error and "is not used. This Python lacks torch" in text
        assert addon_preferences.torch_python == ""

    def test_one_with_torch_is_used_and_left_again(self, addon_preferences, monkeypatch):
        says(monkeypatch, FULL)
        bpy.ops.wav2sem.use_python(filepath=sys.executable)
        assert addon_preferences.torch_python == sys.executable
        assert runtime.answer(bpy.context) == FULL
        assert bpy.ops.wav2sem.use_own_python() == {"FINISHED"}
        assert addon_preferences.torch_python == ""
        assert runtime.WAV2SEM_OT_use_own_python.disabled_reason(bpy.context) == "Blender's Python is in use"

    def test_what_is_no_python_is_refused(self, addon_preferences):
        with pytest.raises(RuntimeError, match="there is no such Python"):
            bpy.ops.wav2sem.use_python(filepath="/nowhere/python")

    def test_a_program_that_answers_nothing_is_refused(self, addon_preferences, tmp_path, monkeypatch):
        script = [sys.executable, "-c", ""]
        monkeypatch.setattr(environment.WorkerEnvironment, "run", lambda self, module, *arguments: script)
        bpy.ops.wav2sem.use_python(filepath=sys.executable)
        text, is_error = runtime.message
        assert is_error and text.endswith("is not used. It did not answer as a Python would. Choose another program.")
        assert addon_preferences.torch_python == ""
        runtime.check()
        assert "It did not answer" in str(runtime.answer(bpy.context))

    def test_a_python_that_went_away_is_told_in_the_page(self, addon_preferences):
        addon_preferences.torch_python = "/nowhere/python"
        runtime.check()
        answer = runtime.answer(bpy.context)
        assert isinstance(answer, str) and "/nowhere/python: there is no such Python" in answer


class TestInstalling:
    def test_offline_the_button_says_how_to_allow_it(self, addon_preferences, place, monkeypatch):
        monkeypatch.setattr(runtime, "is_online", lambda: False)
        with pytest.raises(RuntimeError, match="Online access is off; allow it in Preferences > System > Network"):
            bpy.ops.wav2sem.install_runtime()

    def test_what_is_no_extension_has_no_folder(self, addon_preferences, monkeypatch):
        monkeypatch.setattr(runtime, "is_online", lambda: True)
        assert "Only an installed extension" in runtime.WAV2SEM_OT_install_runtime.disabled_reason(bpy.context)

    def test_success_sets_the_python(self, addon_preferences, place, monkeypatch):
        python = str(Runtime(place).python)
        addon_preferences.package_index = "somewhere"
        given = runs(monkeypatch, f"print('{json.dumps({'result': {'python': python}})}')")
        assert bpy.ops.wav2sem.install_runtime() == {"FINISHED"}
        assert addon_preferences.torch_python == python
        assert given == [("install", place, "--packages", "torch_runtime", "--index", "somewhere")]
        assert runtime.message == ("The Torch Runtime is installed and in use.", False)

    def test_what_is_half_made_is_not_used(self, addon_preferences, place, monkeypatch):
        """An update that fails leaves Blender's own Python in use."""
        addon_preferences.torch_python = str(Runtime(place).python)
        failed = json.dumps({"error": Text("The disk is full.").to_json()})
        runs(monkeypatch, f"import sys; print('{failed}'); sys.exit(1)")
        bpy.ops.wav2sem.install_runtime()
        assert addon_preferences.torch_python == ""
        assert runtime.message == ("The disk is full.", True)

    def test_removing_deletes_the_folder_and_leaves_the_python(self, addon_preferences, place):
        with pytest.raises(RuntimeError, match="There is no Torch Runtime"):
            bpy.ops.wav2sem.remove_runtime()
        (place / "env").mkdir(parents=True)
        (place / "env" / "file").write_bytes(b"12345")
        runtime._take_measure(TORCH, {"size_bytes": 5}, "")
        assert Runtime(place).is_unfinished and runtime.unfinished_bytes(TORCH) == 5
        addon_preferences.torch_python = str(Runtime(place).python)
        assert bpy.ops.wav2sem.remove_runtime() == {"FINISHED"}
        assert list(place.parent.iterdir()) == []
        assert addon_preferences.torch_python == ""
        assert runtime.message == ("The Torch Runtime was removed.", False)


class TestRecogniser:
    def test_the_model_is_shown_with_size_and_licence_or_what_is_wrong(self, addon_preferences, place, whisper_model):
        runtime._answers[("", "auto")] = FULL
        assert "The Python in use has no faster-whisper; install the Recogniser Runtime" in drawn(addon_preferences)
        addon_preferences.recogniser_folder = str(whisper_model)
        (whisper_model / "model.bin").write_bytes(bytes(145_000_000))
        assert "Whisper model: 145 MB; OpenAI's are under the MIT licence" in drawn(addon_preferences)
        (whisper_model / "vocabulary.txt").unlink()
        assert "for faster-whisper: it has no vocabulary.txt." in " ".join(drawn(addon_preferences).split())
        addon_preferences.recogniser_folder = "/nowhere"
        assert "/nowhere: there is no such folder" in drawn(addon_preferences)

    def test_where_it_runs(self, addon_preferences, place):
        runtime._answers[("", "auto")] = replace(FULL, recogniser="faster-whisper 1.2.1")
        assert "faster-whisper 1.2.1 in /opt/python" in drawn(addon_preferences)
        runtime._answers[("", "auto")] = replace(FULL, recogniser_trouble="faster-whisper: ImportError: no AVX")
        assert "faster-whisper: ImportError: no AVX" in drawn(addon_preferences)
        complete(Runtime(place.with_name(RECOGNISER.name), RECOGNISER))
        page = drawn(addon_preferences)
        assert "The Recogniser Runtime is installed" in page and "ImportError" not in page
        assert "Install Torch Runtime" in page, "the two are independent"

    def test_installing_and_removing_leave_torch_alone(self, addon_preferences, place, monkeypatch):
        complete(Runtime(place, TORCH))
        addon_preferences.torch_python = python = str(Runtime(place).python)
        recogniser = Runtime(place.with_name(RECOGNISER.name), RECOGNISER)
        given = runs(monkeypatch, 'print(\'{"result": {"python": "x"}}\')')
        assert bpy.ops.wav2sem.install_runtime(name=RECOGNISER.name) == {"FINISHED"}
        assert given == [("install", recogniser.folder, "--packages", RECOGNISER.name)]
        assert runtime.message == ("The Recogniser Runtime is installed and in use.", False)
        complete(recogniser)
        monkeypatch.undo()
        monkeypatch.setattr(stored, "runtime_folder", lambda name: place.with_name(name))
        assert bpy.ops.wav2sem.remove_runtime(name=RECOGNISER.name) == {"FINISHED"}
        assert [path.name for path in place.parent.iterdir()] == [TORCH.name]
        assert addon_preferences.torch_python == python and Runtime(place).is_complete


def complete(made: Runtime) -> None:
    """As after an installation."""
    made.python.parent.mkdir(parents=True)
    made.python.touch(mode=0o755)
    made.set_complete()


def test_cancelling_and_unregistering_end_the_process():
    task = TaskProcess([sys.executable, "-c", "import time; time.sleep(600)"], os.environ, "Waiting")
    pid = task.pid
    in_process._running["install"] = in_process._Running(task, lambda result, error: None)
    assert bpy.ops.wav2sem.cancel_task(name="install") == {"FINISHED"}
    assert task.pid is None and not in_process.any_running() and runtime.message[0] == "Cancelled."
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def says(monkeypatch, report: Report) -> None:
    """Make every Python answer with this report."""
    line = json.dumps({"result": vars(report)})
    script = [sys.executable, "-c", f"print({line!r})"]
    monkeypatch.setattr(environment.WorkerEnvironment, "run", lambda self, module, *arguments: script)


def runs(monkeypatch, code: str) -> list[tuple]:
    """Run this code as the installer; returns the calls of it."""
    given = []

    def installer(verb, target, *options):
        given.append((verb, target, *options))
        return TaskProcess([sys.executable, "-c", code], os.environ, "Starting")

    monkeypatch.setattr(runtime, "_installer", installer)
    return given
