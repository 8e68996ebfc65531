# SPDX-License-Identifier: GPL-3.0-or-later
"""The buttons, messages, options and pictures of the user guide exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "wav2sem_blender"
GUIDE = ROOT / "docs" / "user-guide.md"
PICTURES = ROOT / "docs" / "images" / "guide"
TEXT = GUIDE.read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
# What the guide writes where a message has a value.
GAP = "…"
MAX_PICTURE_BYTES = 150_000
# A sheet of more than twenty pictures.
MAX_SHEET_BYTES = {"characters.png": 400_000}


def written(node: ast.AST) -> str | None:
    """A text as the guide writes it, with … for each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w*(?:[:!][^}]*)?\}", GAP, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return None


def texts_of(tree: ast.Module) -> set[str]:
    """Every text of a module except its docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return {text for node in ast.walk(tree) if id(node) not in docstrings and (text := written(node))}


SAID = {text for file in PACKAGE.rglob("*.py") for text in texts_of(ast.parse(file.read_text(encoding="utf-8")))}
PRESETS = {file.stem.replace("_", " ") for file in PACKAGE.rglob("presets/wav2sem/*.py")}


def slug(heading: str) -> str:
    """A heading's anchor on the usual hosts."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("label", sorted(set(re.findall(r"\*\*(.+?)\*\*", PROSE, re.DOTALL))))
def test_bold_words_are_labels_of_the_add_on(label: str) -> None:
    assert {label, f"{label}...", f"{label}…"} & (SAID | PRESETS), f"nothing is called {label!r}"


@pytest.mark.parametrize("message", re.findall(r"^\| (.+?) \|", PROSE.split("| message |")[1], re.MULTILINE))
def test_explained_messages_are_the_add_ons(message: str) -> None:
    assert any(message in text for text in SAID), f"nothing says {message!r}"


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)\s]+)\)", TEXT))))
def test_links_lead_somewhere(link: str) -> None:
    name, _, anchor = link.partition("#")
    target = (GUIDE.parent / name).resolve() if name else GUIDE
    assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
    assert target.is_file(), f"{target} does not exist"
    if anchor:
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in map(slug, headings), f"{target.name} has no heading #{anchor}"


def test_pictures_are_shown_and_small() -> None:
    shown = {GUIDE.parent / link for link in re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXT)}
    kept = set(PICTURES.glob("*"))
    assert kept == shown, f"shown and kept differ by {sorted(path.name for path in kept ^ shown)}"
    sizes = {path.name: path.stat().st_size for path in kept}
    large = {name: size for name, size in sizes.items() if size > MAX_SHEET_BYTES.get(name, MAX_PICTURE_BYTES)}
    assert not large


def test_every_picture_is_made_by_the_scenario() -> None:
    scenarios = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "gui").glob("scenarios_*.py")]
    text = "".join(scenarios).replace(".png", "")
    assert not [path.stem for path in PICTURES.glob("*") if f'"{path.stem}' not in text]


def test_options_are_the_commands() -> None:
    source = (PACKAGE / "blender" / "animate" / "command.py").read_text(encoding="utf-8")
    known = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', source)) | {"--help"}
    batches = TEXT.split("## Batches")[1].split("\n## ")[0]
    used = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", batches)) - {"--command"}
    assert len(used) > 5
    assert used <= known, f"the command has no {sorted(used - known)}"


def test_operators_exist() -> None:
    used = set(re.findall(r"bpy\.ops\.(wav2sem\.\w+)\(", TEXT))
    assert used
    assert used <= SAID, f"there is no operator {sorted(used - SAID)}"


def test_figures_are_the_model_cards() -> None:
    limits = TEXT.split("## What it cannot do")[1]
    figures = re.findall(r"\b0\.\d{3}\b", limits)
    card = (ROOT / "docs" / "model-card.md").read_text(encoding="utf-8")
    assert figures
    assert not [figure for figure in figures if figure not in card]
