# SPDX-License-Identifier: GPL-3.0-or-later
"""The curves are those of the commit that recorded tests/golden/curves.npz: a refactoring moves none of them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

GOLDEN = Path(__file__).parents[1] / "golden"
golden_curves = runpy.run_path(str(GOLDEN / "golden_curves.py"))


@pytest.fixture(scope="module")
def differences(tmp_path_factory) -> dict[str, str]:
    """Every case and what differs, "" for nothing."""
    folder = tmp_path_factory.mktemp("golden")
    return dict(golden_curves["differences"](GOLDEN / "curves.npz", golden_curves["SHORT"], folder))


@pytest.mark.parametrize("case", [f"{model} {duration_s:.0f} s" for model, duration_s in golden_curves["SHORT"]])
def test_curves_are_as_recorded(differences: dict[str, str], case: str) -> None:
    assert differences[case] == ""
