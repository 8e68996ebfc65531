# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers of docs/architecture.md hold: what a fresh interpreter loads, and what the sources import.

The nested ruff.toml files check each import statement; these tests check what an import really drags in.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "wav2sem_blender"

# Loads a module with some others made unimportable, then tells which top-level modules are there.
PROBE = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"{{name}} is refused by the test")

sys.meta_path.insert(0, Refuse())
before = set(sys.modules)
{statement}
print(json.dumps(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})))
"""


def loaded_by(statement: str, refused: set[str] = frozenset()) -> set[str]:
    """Return the top-level modules that `statement` loads in a fresh interpreter that cannot import `refused`."""
    code = PROBE.format(refused=sorted(refused), statement=statement)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def third_party(modules: set[str]) -> set[str]:
    """Return what is neither the standard library, nor ours, nor the pseudo-modules that Cython registers."""
    names = {name for name in modules if name not in sys.stdlib_module_names and "cython" not in name}
    return names - {"wav2sem_blender"}


@pytest.mark.parametrize("module", ["wav2sem_blender", "wav2sem_blender.pipeline"])
def test_importing_the_package_loads_no_library(module: str) -> None:
    assert third_party(loaded_by(f"import {module}")) <= {"numpy"}


@pytest.mark.parametrize(
    "module", ["client", "protocol", "environment", "boot", "chore", "runtime", "install", "probe"]
)
def test_blenders_side_of_the_worker_is_standard_library_only(module: str) -> None:
    assert third_party(loaded_by(f"import wav2sem_blender.worker.{module}")) == set()


BLENDER_MAY_USE = {
    "curve_table",
    "face_names",
    "geometry",
    "key_reduction",
    "landmarks",
    "motion",
    "prosody",
    "retarget",
    "steps",
    "transfer",
    "upper_face",
    "visemes",
}


@pytest.mark.parametrize("module", sorted(BLENDER_MAY_USE))
def test_what_blender_imports_of_the_pipeline_costs_numpy(module: str) -> None:
    assert third_party(loaded_by(f"import wav2sem_blender.pipeline.{module}")) <= {"numpy"}


def test_the_default_model_runs_without_torch_blender_and_trainer() -> None:
    absent = {"bpy", "torch", "transformers", "trainer"}
    if not (PACKAGE / "assets/models/default/config.json").exists():
        pytest.skip("the repository has no bundled model")
    statement = (
        "import numpy as np\n"
        "from wav2sem_blender.pipeline import SpeechAnimator\n"
        "motion = SpeechAnimator.load('default', engine='onnx').animate(np.sin(np.arange(16000.0) / 9), 16000)\n"
        "assert motion.weights_TK.shape[1] == len(motion.channels) and np.isfinite(motion.weights_TK).all()"
    )
    assert not loaded_by(statement, refused=absent) & absent


def test_a_refused_module_cannot_be_imported() -> None:
    """The probe of the other tests can fail."""
    with pytest.raises(AssertionError, match="refused by the test"):
        loaded_by("import numpy", refused={"numpy"})


def imports_of(path: Path) -> set[str]:
    """Return the absolute names that a source file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_package_imports_itself_relatively_and_no_trainer(path: Path) -> None:
    imported = imports_of(path)
    assert "trainer" not in imported, "the trainer uses the pipeline, never the reverse"
    # boot.py makes the package importable under this name before it imports it; it uses no import statement.
    assert "wav2sem_blender" not in imported, "inside Blender the package has another name: use relative imports"


def test_only_the_blender_folder_imports_blender() -> None:
    users = {path for path in PACKAGE.rglob("*.py") if {"bpy", "mathutils", "bpy_extras", "aud"} & imports_of(path)}
    assert {path.relative_to(PACKAGE).parts[0] for path in users} <= {"blender"}


def test_blender_uses_those_modules_of_the_pipeline_alone() -> None:
    used = set()
    for path in (PACKAGE / "blender").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pipeline":
                assert node.module != "pipeline", f"{path.name}: the package's own names load an engine"
                used.add(node.module.partition(".")[2])
    assert used <= BLENDER_MAY_USE


def test_trainer_knows_no_blender() -> None:
    users = [path.name for path in (ROOT / "trainer").rglob("*.py") if {"bpy", "mathutils"} & imports_of(path)]
    assert users == []


# Each package of the trainer uses those before it and no other.
TRAINER_ORDER = ("experiments", "runs", "heads", "datasets", "speech", "motion", "evaluation", "loops", "analysis")


def test_every_package_of_the_trainer_has_its_place() -> None:
    assert {path.parent.name for path in (ROOT / "trainer").glob("*/__init__.py")} == set(TRAINER_ORDER)


@pytest.mark.parametrize("package", TRAINER_ORDER)
def test_a_package_of_the_trainer_uses_only_those_before_it(package: str) -> None:
    before = TRAINER_ORDER[: TRAINER_ORDER.index(package)]
    for path in sorted((ROOT / "trainer" / package).glob("*.py")):
        assert "trainer" not in imports_of(path), "imports inside the trainer are relative"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level > 1:
                assert (node.module or "").partition(".")[0] in before, f"{path.name}, line {node.lineno}"
