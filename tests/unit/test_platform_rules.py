# SPDX-License-Identifier: GPL-3.0-or-later
"""What extensions.blender.org asks of sources and manifest. docs/publishing.md has the whole check list."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "wav2sem_blender"
MANIFEST = tomllib.loads((ROOT / "blender_manifest.toml").read_text(encoding="utf-8"))
LICENCE_OF_WEIGHTS = (ROOT / "LICENSE-weights").read_text(encoding="utf-8")
SOURCES = sorted(PACKAGE.rglob("*.py"))
# Modules that reach the network.
NETWORK_MODULES = {"aiohttp", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "ssl", "urllib", "urllib3"}
# Sentence endings that Blender refuses at the end of a short text.
PUNCTUATION = ".!?,;:"


def name_of(path: Path) -> str:
    """A source file's path inside the package."""
    return path.relative_to(PACKAGE).as_posix()


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """The nodes of a source's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported_names(path: Path) -> set[str]:
    """The first parts of the absolute module names that a source imports, at any depth."""
    plain = [alias.name for node in nodes_of(path) if isinstance(node, ast.Import) for alias in node.names]
    taken_from = [node.module for node in nodes_of(path) if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.partition(".")[0] for name in (*plain, *taken_from) if name}


def called_names(path: Path) -> set[str]:
    """The bare names that a source calls."""
    functions = [node.func for node in nodes_of(path) if isinstance(node, ast.Call)]
    return {function.id for function in functions if isinstance(function, ast.Name)}


def strings_of(path: Path) -> set[str]:
    """The string constants of a source."""
    return {node.value for node in nodes_of(path) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def attributes_of(path: Path) -> set[str]:
    """Dotted names that a source uses, as in "sys.path"."""
    return {ast.unparse(node) for node in nodes_of(path) if isinstance(node, ast.Attribute)}


def test_the_name_does_not_borrow_blenders() -> None:
    assert "blender" not in MANIFEST["name"].lower()
    assert not (MANIFEST["tagline"].lower().startswith("blender") or MANIFEST["tagline"][-1] in PUNCTUATION)


def test_every_copyright_notice_that_we_carry_is_in_the_manifest() -> None:
    notices = re.findall(
        r"Copyright \(c\) ([\d-]+ .+?)(?:\. All rights reserved\.)?$", LICENCE_OF_WEIGHTS, re.MULTILINE
    )
    assert len(notices) == 4 and set(notices) <= set(MANIFEST["copyright"])
    assert {"2005 Nickolay V. Shmyrev", "2018 Picovoice Inc."} <= set(MANIFEST["copyright"])  # written otherwise
    assert all(re.fullmatch(r"\d{4}(-\d{4})? \S.*", line) for line in MANIFEST["copyright"])


def test_the_licence_of_the_weights_names_files_that_exist() -> None:
    named = set(re.findall(r"`(\w+\.(?:npz|json))`", LICENCE_OF_WEIGHTS))
    assert len(named) == 4
    assert not [name for name in named if not any(PACKAGE.rglob(name))]


def test_the_manifest_has_no_left_over_default() -> None:
    """Moderators reject empty values and those of the example."""
    assert all(MANIFEST.values()) and "my_example" not in MANIFEST["id"]
    assert MANIFEST["schema_version"] == "1.0.0" and MANIFEST["type"] == "add-on"
    assert re.fullmatch(r"\d+\.\d+\.\d+", MANIFEST["version"])
    assert MANIFEST["license"][0] == "SPDX:GPL-3.0-or-later"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_source_is_readable_and_says_its_licence(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: GPL-3.0-or-later\n")
    assert max(map(len, text.splitlines())) <= 250, "a line that long is data or hides code"
    assert not called_names(path) & {"exec", "eval", "compile", "__import__"}
    # Published templates and checkpoints are pickles; that module alone reads them, and can make arrays only.
    may_read = {"pickle"} if path.name == "restricted_pickle.py" else set()
    assert not imported_names(path) & {"marshal", "pickle", "base64"} - may_read


def test_the_package_holds_no_program_and_no_byte_code() -> None:
    files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files if not any(part[0] == "." or part == "__pycache__" for part in path.parts)}
    assert kinds <= {".py", ".toml", ".json", ".npz", ".onnx", ".safetensors", ".flac", ".png", ".md", ".txt", ".html"}


def test_a_page_is_readable_and_loads_nothing() -> None:
    for path in PACKAGE.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("<!-- SPDX-License-Identifier: GPL-3.0-or-later -->\n")
        assert max(map(len, text.splitlines())) <= 250, "a line that long is data or hides code"
        assert not re.search(r"<link|@import|src=|\beval\(|Function\(|fetch\(|XMLHttpRequest|import\(", text)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_source_opens_a_connection(path: Path) -> None:
    assert not imported_names(path) & NETWORK_MODULES
    assert "bl_info" not in path.read_text(encoding="utf-8"), "the manifest has taken its place"


def test_what_may_download_asks_blender_first() -> None:
    """Only pip may use the network: in its own process, after a click, if Blender allows it."""
    starts_pip = {path for path in SOURCES if "pip" in strings_of(path)}
    asks = {path for path in SOURCES if "bpy.app.online_access" in attributes_of(path)}
    assert bool(starts_pip) == bool(asks), f"{starts_pip or 'nobody'} downloads, {asks or 'nobody'} asks Blender"
    assert ("network" in MANIFEST["permissions"]) == bool(asks)


def test_only_the_workers_process_extends_its_search_path() -> None:
    extending = {name_of(path) for path in SOURCES if "sys.path" in attributes_of(path)}
    # The command lines take the folder that the user stands in out of theirs.
    assert extending <= {"worker/boot.py", "import_path.py"}, "inside Blender, use wheels and relative imports"
    users = {name_of(path) for path in SOURCES if "import_path" in path.read_text(encoding="utf-8")}
    assert users <= {"__main__.py", "import_path.py", "worker/boot.py"}


def test_the_check_list_names_proofs_that_exist() -> None:
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8").partition("## A listing")[2]
    named = set(re.findall(r"`(test_\w+)`(?: in `(tests/[\w/]+\.py)`)?", text))
    assert len(named) > 15
    for test, place in named:
        source = ROOT / place if place else Path(__file__)
        assert f"def {test}(" in source.read_text(encoding="utf-8"), f"{place or source.name} has no {test}"
    for place in set(re.findall(r"`((?:tests|docs|\.ci)/[\w/.]+\.(?:py|md))`", text)):
        assert (ROOT / place).is_file(), place
