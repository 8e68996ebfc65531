# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that the documents name exist; the recipes of docs/architecture.md name complete tables."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from trainer.experiments import known
from wav2sem_blender.pipeline.checkpoint_kinds import CHECKPOINT_KINDS
from wav2sem_blender.pipeline.face_names import _NEEDED, _SPELLINGS
from wav2sem_blender.pipeline.hosts import HOSTS
from wav2sem_blender.pipeline.visemes import VISEME_SETS

ROOT = Path(__file__).parents[2]
BLENDER = ROOT / "wav2sem_blender" / "blender"
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("\n## Recipes\n")[2]
RECIPES = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in TEXT.split("\n### ")[1:]}
HOST_ROWS = ("what it is", "licence", "weights", "exact", "re-derived", "10 s of audio", "import", "train")
TITLES = ("Add a host", "Add a panel", "Add a face naming", "Add a corpus")
MAX_LINES = 8
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SOURCES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("wav2sem_blender", "trainer", "tools", "tests", "docs", ".ci")
    for path in [ROOT / "noxfile.py", *(ROOT / folder).rglob("*.py")]
]


def paths_of(recipe: str) -> list[str]:
    """The paths that a recipe names, from the repository's root."""
    return re.findall(r"`((?:wav2sem_blender|trainer|tests|docs)/[\w./-]+)`", recipe)


def names_of(recipe: str) -> list[tuple[str, str]]:
    """(module, name) for each `module.NAME` in a recipe."""
    return [tuple(found) for found in re.findall(r"`([a-z]\w*)\.(?!py`|json`|md`)([A-Za-z_]\w*)`", recipe)]


def files(path: str) -> list[Path]:
    """The files that a path names; NAME matches any name, and a folder stands for its package."""
    return sorted(
        file for file in ROOT.glob(path.replace("NAME", "*")) if file.name != "__init__.py" or "NAME" not in path
    )


def tree(path: Path) -> ast.Module:
    """A source file as its syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def assigned(path: Path) -> dict[str, ast.expr]:
    """The names that a module assigns at its top, with their values."""
    found: dict[str, ast.expr] = {}
    for node in tree(path).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {target.id: node.value for target in targets if isinstance(target, ast.Name)}
    return found


def defined(path: Path) -> set[str]:
    """The names that a module defines at its top."""
    return {node.name for node in tree(path).body if isinstance(node, ast.ClassDef | ast.FunctionDef)} | set(
        assigned(path)
    )


def wrong(recipe: str) -> list[str]:
    """What a recipe names and the tree does not have."""
    missing = [path for path in paths_of(recipe) if not files(path)]
    modules = {
        file.stem if file.stem != "__init__" else file.parent.name: file
        for path in paths_of(recipe)
        if path.endswith(".py") and "NAME" not in path
        for file in files(path)
    }
    return missing + [
        f"{module}.{name}"
        for module, name in names_of(recipe)
        if module not in modules or name not in defined(modules[module])
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_sources_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8").partition("\n## Recipes\n")[0]
    named = set(re.findall(r"(?<![\w/.])((?:[\w.-]+/)*[\w-]+\.py)\b(?!:)", text))
    assert [name for name in sorted(named) if not any(f"/{path}".endswith(f"/{name}") for path in SOURCES)] == []


def test_every_recipe_is_there_and_short() -> None:
    assert set(RECIPES) == set(TITLES)
    steps = {title: re.findall(r"^\d\. ", recipe, re.MULTILINE) for title, recipe in RECIPES.items()}
    assert {title: 3 <= len(found) <= MAX_LINES for title, found in steps.items()} == dict.fromkeys(TITLES, True)


@pytest.mark.parametrize("title", TITLES)
def test_what_a_recipe_names_exists(title: str) -> None:
    recipe = RECIPES[title]
    assert len(paths_of(recipe)) >= 5 and names_of(recipe)
    assert wrong(recipe) == []


def test_a_wrong_recipe_would_be_found() -> None:
    recipe = "`trainer/nowhere.py`, `trainer/datasets/opening.py`: `opening._OPENERS`, `opening.NOT`, `some.X`"
    assert wrong(recipe) == ["trainer/nowhere.py", "opening.NOT", "some.X"]


def test_every_host_has_an_entry_and_its_files_name_one() -> None:
    folder = ROOT / "wav2sem_blender" / "pipeline" / "hosts"
    hosts = ast.literal_eval(assigned(folder / "__init__.py")["HOSTS"])
    assert set(hosts) == {file.stem for file in folder.glob("*.py")} - {"__init__", "protocol"}
    for kind, name in hosts.items():
        module = tree(folder / f"{kind}.py")
        (settings,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)
        assert f"KIND: ClassVar[str] = '{kind}'" in ast.unparse(settings)
    assert {kind.host for kind in CHECKPOINT_KINDS if kind.host} <= set(hosts)


def test_every_host_is_described_with_experiments_that_exist() -> None:
    parts = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8").split("\n## ")[1:]
    rows = {
        re.sub(r"\W", "", part.partition("\n")[0]).lower(): dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", part, re.M))
        for part in parts
    }
    for kind in set(HOSTS) - {"faceformer_channels"}:
        (section,) = (title for title in rows if title.startswith(kind.replace("_", "")))
        assert set(rows[section]) >= set(HOST_ROWS), section
        named = set(re.findall(rf"\b{kind}_\w*(?:vocaset|biwi|mead)\w*", rows[section]["train"]))
        assert named <= known("finetune").keys() | known("pretrain-prior").keys(), section


def test_every_panel_is_registered() -> None:
    with_classes = {file.stem for file in (BLENDER / "ui").glob("*.py") if "CLASSES" in assigned(file)}
    with_panels = {
        file.stem
        for file in (BLENDER / "ui").glob("*.py")
        if any(isinstance(node, ast.ClassDef) and "_PT_" in node.name for node in tree(file).body)
    }
    registered = {ast.unparse(node) for node in assigned(BLENDER / "registration.py")["CLASSES"].elts}
    assert len(with_panels) >= 7 and with_panels <= with_classes
    assert {f"*{name}.CLASSES" for name in with_classes} <= registered


def test_the_languages_have_the_same_texts_in_the_same_order() -> None:
    german, chinese = (
        json.loads((BLENDER / "translations" / f"{language}.json").read_text(encoding="utf-8"))
        for language in ("de", "zh_HANS")
    )
    assert list(german) == list(chinese)


def test_every_face_naming_is_recognised_tested_translated_and_explained() -> None:
    assert VISEME_SETS.keys() == _SPELLINGS.keys() == _NEEDED.keys()
    files = (ROOT / "tests" / "unit" / f"test_{name}_names.py" for name in ("face", "rig"))
    tests = "".join(file.read_text(encoding="utf-8") for file in files)
    guide = (ROOT / "docs" / "user-guide.md").read_text(encoding="utf-8")
    german = (BLENDER / "translations" / "de.json").read_text(encoding="utf-8")
    for name, visemes in VISEME_SETS.items():
        assert set(_SPELLINGS[name]) == set(visemes.names)
        assert f'visemes == "{name}"' in tests or f'"{name}": ["' in tests
        assert visemes.label in german
        assert visemes.label.split()[0] in guide


def test_every_corpus_has_a_module_experiments_and_tests() -> None:
    openers = assigned(ROOT / "trainer" / "datasets" / "opening.py")["_OPENERS"]
    kinds = [key.value for key in openers.keys if "_" not in key.value]  # "vocaset_60" is VOCASET's module too
    assert len(kinds) >= 3
    training = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests" / "trainer").glob("*.py"))
    for kind in kinds:
        assert f"open_{kind}" in defined(ROOT / "trainer" / "datasets" / f"{kind}.py")
        assert f"| `{kind}*` |" in training
        assert f"write_{kind}" in tests
        for verb in ("face", "evaluation"):
            listed = ast.unparse(assigned(ROOT / "trainer" / "experiments" / f"{verb}.py")["EXPERIMENTS"])
            assert re.search(rf"\b{kind}", listed), (kind, verb)
