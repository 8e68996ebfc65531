# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of Blender versions shows exactly what the records say."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    """The script that makes the table, as its names."""
    return runpy.run_path(str(ROOT / ".ci" / "versions_table.py"))


def made_record(blender: str, check: str, **counts: int) -> dict[str, Any]:
    """A record like those of tests/versions.py."""
    place = {"run_as": "module bpy", "python": "3.11.4", "system": "Linux"}
    return {"check": check, "blender": blender, **place, "date": "2026-01-02", "counts": counts}


@pytest.mark.parametrize(
    "counts, text",
    [
        ({"passed": 1}, "passed"),
        ({"passed": 290, "skipped": 2, "deselected": 1}, "290 passed, 2 skipped, 1 deselected"),
        ({"passed": 5, "failed": 0, "error": 0}, "5 passed"),
        ({"failed": 1}, "**1 failed**"),
        ({"passed": 5, "failed": 2, "error": 1}, "**5 passed, 3 failed**"),
    ],
)
def test_a_cell_hides_no_failure(maker: dict[str, Any], counts: dict[str, int], text: str) -> None:
    assert maker["cell"](counts) == text


def test_a_blender_has_one_line_and_the_oldest_comes_first(maker: dict[str, Any]) -> None:
    records = [
        made_record("5.10.0", "zip", passed=1),
        made_record("5.2.3 LTS", "tests", passed=7),
        made_record("5.2.3 LTS", "zip", passed=1),
    ]
    lines = [line for line in maker["table"](records).splitlines() if line.startswith("| 5")]
    assert lines == [
        "| 5.2.3 LTS | module bpy | 3.11.4 | Linux | passed | – | 7 passed | – | 2026-01-02 |",
        "| 5.10.0 | module bpy | 3.11.4 | Linux | passed | – | – | – | 2026-01-02 |",
    ]


def test_the_record_of_a_run_that_crashed_is_no_success(maker: dict[str, Any], tmp_path: Path) -> None:
    """A check first records failed=1, which its end replaces. Without WAV2SEM_VERSIONS nothing is written."""
    pytest.importorskip("bpy", reason="the records say which Blender it is")
    code = "import runpy; record = runpy.run_path('tests/versions.py')['record']; record('zip', failed=1); 1 / 0"
    for variables, expected in ({}, 0), ({"WAV2SEM_VERSIONS": str(tmp_path)}, 1):
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True)
        assert len(list(tmp_path.glob("*.json"))) == expected
    record = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
    assert record["check"] == "zip" and record["run_as"] == "module bpy"
    assert "**1 failed**" in maker["table"]([record])


def test_the_document_in_the_repository_was_made_by_the_program(maker: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    assert text.startswith(maker["INTRODUCTION"])
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len(cells) > 1 and {len(line) for line in cells} == {5 + len(maker["COLUMNS"])}
