# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers of docs/architecture.md: what a fresh interpreter loads, and what the sources import.

The nested ruff.toml files check each import statement. These tests check what an import really loads.
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

# Runs a statement while some modules cannot be imported, then prints the new top-level modules.
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
    """Return the top-level modules that `statement` loads in a fresh interpreter without `refused`."""
    code = PROBE.format(refused=sorted(refused), statement=statement)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def third_party(modules: set[str]) -> set[str]:
    """Leave out the standard library, our own package, and the pseudo-modules that Cython registers."""
    names = {name for name in modules if name not in sys.stdlib_module_names and "cython" not in name}
    return names - {"wav2sem_blender"}


@pytest.mark.parametrize("module", ["wav2sem_blender", "wav2sem_blender.pipeline"])
def test_importing_the_package_loads_no_library(module: str) -> None:
    assert third_party(loaded_by(f"import {module}")) <= {"numpy"}


@pytest.mark.parametrize(
    "module",
    ["supervisor", "client", "task", "protocol", "environment", "boot", "child", "runtime", "install", "probe", "look"],
)
def test_blenders_side_of_the_worker_is_standard_library_only(module: str) -> None:
    assert third_party(loaded_by(f"import wav2sem_blender.worker.{module}")) == set()


@pytest.mark.parametrize("module", ["manifest", "journal", "resume", "lock", "pool", "progress", "exit_codes"])
def test_the_books_of_a_batch_are_standard_library_only(module: str) -> None:
    assert third_party(loaded_by(f"import wav2sem_blender.batch.{module}")) == set()


@pytest.mark.parametrize("module", ["command", "run", "line", "report_page"])
def test_a_batch_loads_no_engine_before_its_workers(module: str) -> None:
    """Also no sound library: Blender's process imports these."""
    assert third_party(loaded_by(f"import wav2sem_blender.batch.{module}")) <= {"numpy"}


BLENDER_MAY_USE = {
    "any_head.geometry",
    "any_head.landmarks",
    "any_head.transfer",
    "checkpoint",
    "checkpoint_kinds",
    "composition",
    "cost",
    "curve_formats",
    "curve_table",
    "delivery",
    "face_names",
    "flame",
    "forced_phones",
    "key_reduction",
    "motion",
    "phones",
    "prosody",
    "recognise",
    "retarget",
    "rig_controls",
    "steering",
    "time_slicing",
    "tongue",
    "upper_face",
    "visemes",
    "words.directions",
    "words.heard",
    "words.language",
    "words.pronunciation",
    "words.spoken",
    "words.track",
    "words.track_files",
    "words.transcript",
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
    """The other tests' probe can fail."""
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
    # boot.py loads the package under this name without an import statement.
    assert "wav2sem_blender" not in imported, "inside Blender the package has another name: use relative imports"


def test_only_the_blender_folder_imports_blender() -> None:
    users = {path for path in PACKAGE.rglob("*.py") if {"bpy", "mathutils", "bpy_extras", "aud"} & imports_of(path)}
    assert {path.relative_to(PACKAGE).parts[0] for path in users} <= {"blender"}


def test_blender_uses_those_modules_of_the_pipeline_alone() -> None:
    used = set()
    for path in (PACKAGE / "blender").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pipeline":
                inside = node.module.partition(".")[2]
                used |= {inside} if inside else {alias.name for alias in node.names}
    assert used <= BLENDER_MAY_USE


def test_trainer_knows_no_blender() -> None:
    users = [path.name for path in (ROOT / "trainer").rglob("*.py") if {"bpy", "mathutils"} & imports_of(path)]
    assert users == []


def test_pipeline_and_worker_know_no_batch() -> None:
    for name in MODULES:
        if name.startswith(("wav2sem_blender.pipeline", "wav2sem_blender.worker")):
            assert not {used for used in uses(name) if used.startswith("wav2sem_blender.batch")}, name


# A room may import only itself and those before it. Modules beside the rooms are not ordered.
ORDERS = {
    "trainer": (
        *(
            "runs",
            "mesh_registration",
            "datasets",
            "speech",
            "motion",
            "host_checks",
            "evaluation",
            "loops",
            "analysis",
        ),
        "experiments",
    ),
    "wav2sem_blender.blender": ("tasks", "sound", "scene", "animate", "ui", "preferences", "demo"),
}
# Beside Blender's rooms: these import none of them; registration imports all.
BLENDER_GROUND = {"compat", "addon_preferences", "translations"}


def modules() -> dict[str, Path]:
    """Every module of the package and the trainer, by its full name."""
    found = {}
    for top in ("wav2sem_blender", "trainer"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def uses(name: str) -> set[str]:
    """Our modules that a module imports, also inside functions, but not those only for type checks."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    used = set()
    for node in ast.walk(_without_type_checks(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            used |= {
                f"{target}.{alias.name}" if f"{target}.{alias.name}" in MODULES else target for alias in node.names
            }
    return {module for module in used if module in MODULES and module != name}


def _without_type_checks(tree: ast.Module) -> ast.Module:
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
    ]
    return tree


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that all reach one another (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return [group for group in found if len(group) > 1]


def test_no_circle_of_imports_lazy_ones_included() -> None:
    assert circles({name: uses(name) for name in MODULES}) == []


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]


def rooms(folder: str) -> set[str]:
    """The folder's packages."""
    depth = folder.count(".") + 1
    return {name.split(".")[depth] for name in MODULES if name.startswith(f"{folder}.") and name.count(".") > depth}


@pytest.mark.parametrize("folder", ORDERS)
def test_every_room_has_its_place(folder: str) -> None:
    assert rooms(folder) - BLENDER_GROUND == set(ORDERS[folder])


@pytest.mark.parametrize(("folder", "room"), [(folder, room) for folder, order in ORDERS.items() for room in order])
def test_a_room_uses_only_those_before_it(folder: str, room: str) -> None:
    allowed = {room, *ORDERS[folder][: ORDERS[folder].index(room)], *BLENDER_GROUND}
    for name in sorted(name for name in MODULES if name.startswith(f"{folder}.{room}.")):
        # The demo registers the add-on.
        own = allowed | ({"registration"} if room == "demo" else set())
        inside = {module.removeprefix(f"{folder}.") for module in uses(name) if module.startswith(f"{folder}.")}
        assert {module.partition(".")[0] for module in inside} <= own, name


@pytest.mark.parametrize("module", sorted(BLENDER_GROUND))
def test_the_ground_of_blenders_rooms_knows_none_of_them(module: str) -> None:
    folder = "wav2sem_blender.blender"
    inside = {used.removeprefix(f"{folder}.") for used in uses(f"{folder}.{module}") if used.startswith(f"{folder}.")}
    assert {used.partition(".")[0] for used in inside} <= BLENDER_GROUND


def test_imports_inside_the_trainer_are_relative() -> None:
    for path in (ROOT / "trainer").rglob("*.py"):
        assert "trainer" not in imports_of(path), path
