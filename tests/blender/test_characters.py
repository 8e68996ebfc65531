# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of character opens its mouth, closes every closure and rounds, as the table of the guide says."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("onnxruntime", reason="the bundled model needs ONNX Runtime")

from wav2sem_blender.assets import DEFAULT_MODEL  # noqa: E402

from . import characters  # noqa: E402, TID252

pytestmark = pytest.mark.skipif(
    not (DEFAULT_MODEL / "config.json").is_file(), reason="the repository has no bundled model"
)
# A face of one key that opens the mouth, and one that smiles.
CANNOT_ROUND = ("Ready Player Me, two keys",)


@pytest.mark.parametrize("kind", characters.KINDS)
def test_a_character_speaks(kind: str) -> None:
    found = characters.shown(kind)
    assert found.n_closures >= 10 and found.closed == found.n_closures
    assert found.opening > 6
    assert found.rounding < -8 or kind in CANNOT_ROUND


def test_the_guide_has_the_table() -> None:
    guide = characters.GUIDE.read_text(encoding="utf-8")
    written = guide.partition(characters.BEGIN)[2].partition(characters.END)[0].strip()
    remedy = "run: python tests/blender/characters.py --write"
    number = re.compile(r"[-+]?\d+\.\d")
    assert number.sub("", written) == number.sub("", characters.table()), remedy
    lengths = [[float(found) for found in number.findall(text)] for text in (written, characters.table())]
    assert lengths[0] == pytest.approx(lengths[1], abs=0.3), remedy
