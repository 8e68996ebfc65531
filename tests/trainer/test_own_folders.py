# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command that writes a folder refuses one with somebody's work in it, and leaves it untouched."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trainer import __main__ as trainer  # noqa: E402
from trainer.analysis import analyze  # noqa: E402
from trainer.datasets import exported_faces  # noqa: E402
from trainer.evaluation import evaluate  # noqa: E402
from trainer.experiments.analysis import bundled as analyze_bundled  # noqa: E402
from trainer.experiments.evaluation import vocaset  # noqa: E402
from trainer.experiments.export import bundled, official  # noqa: E402
from trainer.experiments.hubert import bundled_smoke  # noqa: E402
from trainer.experiments.preparation import speech  # noqa: E402
from trainer.loops import clusters, export, pretrain_hubert  # noqa: E402
from trainer.motion import curves  # noqa: E402
from trainer.runs.run import Run  # noqa: E402
from trainer.speech import prepared  # noqa: E402
from wav2sem_blender import __main__ as command_line  # noqa: E402
from wav2sem_blender.assets import DEFAULT_MODEL  # noqa: E402
from wav2sem_blender.files import FolderKind, same_file_name  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import (  # noqa: E402
    Wav2SemConfig,
    copy_folder,
    open_folder,
    save_wav2sem,
)
from wav2sem_blender.pipeline.nn.encoders import build_backbone  # noqa: E402
from wav2sem_blender.pipeline.official import import_official  # noqa: E402
from wav2sem_blender.worker import serve  # noqa: E402

ROOT = Path(__file__).parents[2]
SMALL = Wav2SemConfig(config={"hidden_size": 8}, target_dim=8)
TENSORS = {"wav2sem.projection.weight": np.zeros((8, 8), np.float32)}


def write_run(folder: Path) -> None:
    Run(folder, verb="pretrain-hubert", name="smoke", config=bundled_smoke(), device="cpu").close()


def small_encoder() -> torch.nn.Module:
    encoder = bundled_smoke().encoder
    return build_backbone(encoder.kind, encoder.config)


def pack(folder: Path) -> None:
    packer = runpy.run_path(str(ROOT / ".ci" / "pack_extension.py"))
    # Without platforms nothing is packed if the folder is free.
    packer["PLATFORMS"].clear()
    packer["main"](["--output", str(folder)])


def write_gui(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "gui"))
    runpy.run_path(str(ROOT / "tests" / "gui" / "run.py"))["FOLDER"].empty(folder)


class NoCommands:
    """A stream that ends at once, as after Blender quits."""

    def __iter__(self):
        return iter(())


WRITERS: dict[str, Callable[[Path], object]] = {
    "import of a model folder": lambda folder: copy_folder(DEFAULT_MODEL, folder),
    "import of a released file": lambda folder: import_official(DEFAULT_MODEL / "config.json", "auto", folder),
    "a Wav2Sem": lambda folder: save_wav2sem(folder, SMALL, TENSORS),
    "export": lambda folder: export.export(bundled(), folder.parent / "no run", folder),
    "export to a released format": lambda folder: export.export(official(), folder.parent / "no run", folder),
    "a run": write_run,
    "a run's encoder": lambda folder: pretrain_hubert.save_encoder(small_encoder(), folder, False),
    "a run's clusters": lambda folder: clusters._write(folder, {}, None, None, None),
    "evaluate": lambda folder: evaluate.evaluate(vocaset(), folder.parent, folder, "default", "cpu"),
    "analyze": lambda folder: analyze.analyze(analyze_bundled(), folder.parent, folder, ["default"], "cpu"),
    "prepare speech": lambda folder: prepared.prepare_speech(folder.parent, folder, speech()),
    "prepare motion": lambda folder: curves.write_motion(folder, ("jawOpen",), []),
    "prepare vocaset": lambda folder: exported_faces.write_exported(None, folder),
    "the zips": pack,
    "the pictures of nox -s gui": write_gui,
    "a worker's session": lambda folder: serve.serve(folder, NoCommands()),
}


def notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("notes")
    (folder / "shots").mkdir()
    (folder / "shots" / "a.blend").write_text("work")


def foreign_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "hubert"}')
    (folder / "model.safetensors").write_text("weights")
    (folder / "preprocessor_config.json.bak").write_text("{}")


def run_with_scenes(folder: Path) -> None:
    (folder / "run.json").write_text("{}")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-00000001-0123456789abcdef.pt").write_text("weights")
    (folder / "scene.blend").write_text("work")


def model_and_more(folder: Path) -> None:
    save_wav2sem(folder, SMALL, TENSORS)
    (folder / "notes.txt").write_text("notes")


def disguised(folder: Path) -> None:
    """Names that a writer uses, and one that only looks like them."""
    for name in ("results.json", "weights.npy", "audio.npy", "vocaset.pth", "demo.blend", "index.json", "a.whl"):
        (folder / name).write_text("mine")


CONTENTS = (notes, foreign_model, run_with_scenes, model_and_more, disguised)


def snapshot(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text(errors="replace") for path in folder.rglob("*.*")}


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: content.__name__)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_foreign_folder_is_refused_and_kept(writer: str, content: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    content(folder)
    before = snapshot(folder)
    with pytest.raises((ValueError, FileExistsError), match="holds"):
        WRITERS[writer](folder)
    assert snapshot(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["given"], "something was left beside it"


@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_to_a_foreign_folder_is_refused(writer: str, tmp_path: Path) -> None:
    folder, link = tmp_path / "given", tmp_path / "link"
    folder.mkdir()
    notes(folder)
    link.symlink_to(folder, target_is_directory=True)
    with pytest.raises((ValueError, FileExistsError), match="holds"):
        WRITERS[writer](link)
    assert link.is_symlink() and (folder / "notes.txt").read_text() == "notes"


@pytest.mark.parametrize("place", ["given", "."])
def test_the_command_line_refuses_in_one_line(place: str, tmp_path: Path, monkeypatch, capsys) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    notes(folder)
    monkeypatch.chdir(folder if place == "." else tmp_path)
    before = snapshot(folder)
    arguments = ["import", str(DEFAULT_MODEL), "--kind", "auto", "--output", place]
    assert command_line.main(arguments) == 1
    assert "holds notes.txt, shots" in capsys.readouterr().err
    assert snapshot(folder) == before


def test_the_trainer_refuses_in_one_line(tmp_path: Path, capsys) -> None:
    notes(tmp_path)
    assert trainer.main(["export", "bundled", "--data", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "holds notes.txt, shots" in capsys.readouterr().err


def test_a_model_of_ours_is_replaced_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    save_wav2sem(tmp_path / "model", SMALL, TENSORS)
    copy_folder(DEFAULT_MODEL, tmp_path / "model")
    assert open_folder(tmp_path / "model").files == open_folder(DEFAULT_MODEL).files
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_empty_current_folder_is_filled_and_stays_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    inode = folder.stat().st_ino
    save_wav2sem(folder, SMALL, TENSORS)
    assert folder.stat().st_ino == inode and open_folder(folder).files == {"model.safetensors"}


def test_a_failed_replacement_keeps_the_old_model(tmp_path: Path, monkeypatch) -> None:
    save_wav2sem(tmp_path / "model", SMALL, TENSORS)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    whole, new = Path.rename, []

    def refuse_the_new_one(path: Path, target: Path) -> Path:
        if path.name == "new":
            new.append(path)
            raise OSError(5, "Input/output error")
        return whole(path, target)

    monkeypatch.setattr(
        "wav2sem_blender.files.exchange", lambda *_paths: False
    )  # as where folders cannot change places
    monkeypatch.setattr(Path, "rename", refuse_the_new_one)
    with pytest.raises(OSError, match="Input/output"):
        save_wav2sem(tmp_path / "model", SMALL, {"wav2sem.x": np.ones(3, np.float32)})
    assert new and (tmp_path / "model" / "model.safetensors").read_bytes() == before


def test_a_folder_of_the_same_command_is_taken_over_and_of_another_is_not(tmp_path: Path) -> None:
    demo = FolderKind(made_by="the demo", names=("demo.*",))
    demo.claim(tmp_path / "out")
    (tmp_path / "out" / "demo.mp4").write_text("film")
    demo.claim(tmp_path / "out")
    with pytest.raises(ValueError, match="which the bench did not make"):
        FolderKind(made_by="the bench", names=("*",)).claim(tmp_path / "out")
    demo.empty(tmp_path / "out")
    assert not (tmp_path / "out" / "demo.mp4").exists()


def test_names_that_are_one_file_on_some_disks(tmp_path: Path) -> None:
    assert same_file_name(tmp_path / "Line.npz") == same_file_name(tmp_path / "sub" / ".." / "line.npz")
    assert same_file_name(tmp_path / "e\u0301.npz") == same_file_name(tmp_path / "\u00e9.npz")
    assert same_file_name(tmp_path / "a.npz") != same_file_name(tmp_path / "b.npz")


# Modules that delete folders: each made the folder itself in the same process, or asks `files` first.
MAY_REMOVE_FOLDERS = {
    "wav2sem_blender/files.py": "asks first",
    "wav2sem_blender/leftovers.py": "its mkdtemp, also those of killed processes",
    "wav2sem_blender/worker/client.py": "its mkdtemp",
    "wav2sem_blender/worker/serve.py": "asks before it begins",
    "wav2sem_blender/worker/install.py": "below the extension's own folder",
    "wav2sem_blender/blender/preferences/models.py": "its staging folder",
    "trainer/speech/sentences.py": "its parts, in the cache",
}


def test_no_other_code_removes_or_replaces_a_folder() -> None:
    found = set()
    for folder in ("wav2sem_blender", "trainer"):
        for path in (ROOT / folder).rglob("*.py"):
            if re.search(r"\brmtree\(|removedirs\(|send2trash", path.read_text(encoding="utf-8")):
                found.add(path.relative_to(ROOT).as_posix())
    assert found == set(MAY_REMOVE_FOLDERS)


def test_the_marker_is_plain_json(tmp_path: Path) -> None:
    FolderKind(made_by="the demo", names=()).claim(tmp_path / "out")
    assert json.loads((tmp_path / "out" / ".made_by.json").read_text()) == {"made_by": "the demo"}
