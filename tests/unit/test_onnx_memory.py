# SPDX-License-Identifier: GPL-3.0-or-later
"""A graph of a kilobyte can name tensors of gigabytes: the engine refuses them, in a process that stays small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
HUGE = 3 << 29  # floats: 6.4 GB
RUN = """
import resource, sys
from pathlib import Path
import numpy as np
from wav2sem_blender.errors import user_text
from wav2sem_blender.pipeline import engine_onnx
from wav2sem_blender.pipeline.onnx_file import check_graph
path = Path(sys.argv[1])
class Folder: pass
Folder.path = path.parent
try:
    check_graph(path)
    engine_onnx._Graph(Folder, path.name).run([np.ones((1, 10), np.float32)], [(1, 10)])
except Exception as error:
    print(user_text(error))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) >> 10)
"""


def graph(kind: str, path: Path) -> None:
    """Writes a graph that adds to its input the sum of a tensor of `HUGE` items."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    numbers = {
        "Expand": {"one": np.ones(1, np.float32), "shape": np.array([HUGE])},
        "Range": {name: np.array(value, np.float32) for name, value in (("a", 0), ("b", HUGE), ("c", 1))},
        "Tile": {"one": np.ones(1, np.float32), "times": np.array([HUGE])},
    }[kind]
    half = {"one": np.ones(1, np.float32), "shape": np.array([HUGE // 3])}
    nodes = [helper.make_node(kind, list(numbers), ["huge"]), helper.make_node("ReduceSum", ["huge"], ["sum"])]
    nodes.append(helper.make_node("Add", ["x", "sum"], ["y"]))
    if kind == "Expand":  # two of a third, which alone would pass
        numbers = half
        nodes[:2] = [
            *(helper.make_node("Expand", list(numbers), [name]) for name in ("first", "second")),
            helper.make_node("Add", ["first", "second"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["sum"]),
        ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in numbers.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


@pytest.mark.skipif(sys.platform != "linux", reason="the process tells its peak in /proc")
@pytest.mark.parametrize("kind", ["Expand", "Range", "Tile"])
def test_a_huge_tensor_is_refused(kind: str, tmp_path: Path) -> None:
    graph(kind, tmp_path / "encoder.onnx")
    assert (tmp_path / "encoder.onnx").stat().st_size < 1000
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "encoder.onnx")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    said, peak_mb = done.stdout.splitlines()
    assert said != "None" and ("not enough memory" in said or "encoder.onnx: " in said), done
    assert int(peak_mb) < 2600, "the limit is 2 GB"
