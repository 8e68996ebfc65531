# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender as a module, a fresh file for every test, and heads to animate."""

import json
import runpy
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs Blender as a module (pip install bpy)")

import wav2sem_blender  # noqa: E402
from wav2sem_blender.blender.addon_preferences import ADDON  # noqa: E402
from wav2sem_blender.blender.tasks.task import running_task  # noqa: E402
from wav2sem_blender.pipeline import flame  # noqa: E402
from wav2sem_blender.pipeline.any_head.geometry import edges_hash, face_edges  # noqa: E402
from wav2sem_blender.worker import environment  # noqa: E402

record = runpy.run_path(str(Path(__file__).parents[1] / "versions.py"))["record"]


def pytest_sessionstart():
    record("tests", failed=1)


def pytest_sessionfinish(session):
    stats = session.config.pluginmanager.get_plugin("terminalreporter").stats
    outcomes = ("passed", "failed", "error", "skipped", "deselected")
    record("tests", **{name: len(stats[name]) for name in outcomes if name in stats})


@pytest.fixture(scope="session", autouse=True)
def registered():
    wav2sem_blender.register()
    yield
    wav2sem_blender.unregister()


@pytest.fixture(autouse=True)
def factory_settings(registered):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    yield
    assert running_task() is None


@pytest.fixture
def fake_worker(fake_package, monkeypatch):
    """Let jobs run in a real worker process with a fake animator."""
    fake = environment.WorkerEnvironment(python=Path(sys.executable), boot=fake_package / "worker" / "boot.py")
    monkeypatch.setattr(environment, "embedded", lambda: fake)
    return fake


@pytest.fixture
def animate(fake_worker, audio):
    """Run the operator on the object "Head"; the model's name tells the fake animator what to do."""

    def call(name: str = "ok", **options):
        options.setdefault("object", "Head")
        return bpy.ops.wav2sem.animate(filepath=audio(name), **options)

    return call


def add_mesh(name, points_V3, faces):
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(points_V3, [], faces)
    head = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(head)
    bpy.context.view_layer.objects.active = head
    return head


KEY_DIRECTIONS = {"jawOpen": (0, 0, -1), "mouthPucker": (0, -1, 0), "mouthSmile_L": (1, 0, 0)}


@pytest.fixture
def head():
    """A triangle whose first vertex is moved down, forward and aside by three ARKit keys."""
    made = add_mesh("Head", [(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)])
    made.shape_key_add(name="Basis")
    for name, direction in KEY_DIRECTIONS.items():
        made.shape_key_add(name=name, from_mix=False).data[0].co = direction
    return made


def helix_head(n_vertices=5023, per_turn=100):
    """A closed-looking, lopsided tube with FLAME's vertex count: points (V, 3) in metres and triangles."""
    i = np.arange(n_vertices)
    angle, height = 2 * np.pi * i / per_turn, 2 * i / n_vertices - 1
    radius = 0.08 * np.sqrt(1.05 - height**2) * (1 + 0.2 * np.cos(angle) + 0.1 * np.sin(2 * angle) * height)
    points_V3 = np.stack([radius * np.sin(angle), 0.15 * height, radius * np.cos(angle)], axis=1)
    first = np.arange(n_vertices - per_turn - 1)
    lower = np.stack([first, first + 1, first + per_turn + 1], axis=1)
    upper = np.stack([first, first + per_turn + 1, first + per_turn], axis=1)
    return points_V3, np.concatenate([lower, upper])


@pytest.fixture
def flame_reference(tmp_path, monkeypatch):
    """Replace FLAME by a made-up topology of 5023 vertices; returns its points and faces."""
    points_V3, faces_F3 = helix_head()
    vertex_ids_N = np.arange(0, len(points_V3), 25)
    path = tmp_path / "flame_reference.json"
    content = {
        "vertex_count": len(points_V3),
        "face_count": len(faces_F3),
        "edges_sha256": edges_hash(face_edges(faces_F3)),
        "vertex_ids": vertex_ids_N.tolist(),
        "points": points_V3[vertex_ids_N].tolist(),
        "identity_unit_m": 1.0,
        "identities": np.zeros((len(vertex_ids_N), 3, 1)).tolist(),
        "lip_pairs": [vertex_ids_N[:2].tolist()],
    }
    path.write_text(json.dumps(content))
    monkeypatch.setattr(flame, "FLAME_REFERENCE", path)
    return points_V3, faces_F3


@pytest.fixture
def flame_head(flame_reference):
    """The made-up FLAME head as an object, y up as in FLAME's own files."""
    points_V3, faces_F3 = flame_reference
    return add_mesh("Head", points_V3.tolist(), faces_F3.tolist())


def without_addresses(content: bytes) -> bytes:
    """A saved file with the memory addresses in it numbered by their blocks' order, or zeroed if they name no block.

    4.5 writes addresses everywhere. 5.0 and later number the blocks, but now and then still write the address of
    something that is not in the file. Each block begins with a code, a length, its address, its type and a count.
    """
    large = content[7:9] == b"17"
    offset, layout = (17, "<4siQqq") if large else (12, "<4siQii")
    blocks, parts = [], [content[:offset]]
    while offset < len(content):
        if large:
            code, kind, address, length, count = struct.unpack_from(layout, content, offset)
        else:
            code, length, address, kind, count = struct.unpack_from(layout, content, offset)
        offset += struct.calcsize(layout)
        blocks.append((code, address, kind, count, content[offset : offset + length]))
        offset += length
    number = {address: position for position, (_, address, *_) in enumerate(blocks)}
    for code, address, kind, count, data in blocks:
        words = np.frombuffer(data[: len(data) // 8 * 8], dtype="<u8").copy()
        looks_like_address = (words >> np.uint64(40) >= 0x55) & (words >> np.uint64(40) <= 0x7F)
        for place in np.flatnonzero(looks_like_address) if code != b"DNA1" else ():
            words[place] = number.get(int(words[place]), 0)
        parts.append(struct.pack("<4sqqq", code, number[address], kind, count) + words.tobytes())
        parts.append(data[len(words) * 8 :])
    return b"".join(parts)


@pytest.fixture
def scene_bytes(tmp_path):
    """The bytes of the open file as Blender saves it; equal bytes mean that nothing changed."""

    def save() -> bytes:
        # The first access to a layer moves its parts in memory, and with them the saved pointers.
        for scene in bpy.data.scenes:
            for layer in scene.view_layers:
                layer.update()
        path = tmp_path / "state.blend"
        bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True, compress=False)
        return without_addresses(path.read_bytes())

    assert save() == save(), "saving twice must give equal bytes, or this comparison says nothing"
    return save


@pytest.fixture
def addon_preferences():
    """The add-on's preferences as in an installation; a script that registers the add-on has none."""
    addon = bpy.context.preferences.addons.new()
    addon.module = ADDON
    yield addon.preferences
    bpy.context.preferences.addons.remove(addon)


@pytest.fixture
def curves_of():
    """Key name -> (frames (T,), values (T,)) of a mesh's active action."""

    def read(target) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        animation = target.data.shape_keys.animation_data
        bag = animation.action.layers[0].strips[0].channelbag(animation.action_slot)
        curves = {}
        for curve in bag.fcurves:
            co_T2 = np.empty(2 * len(curve.keyframe_points), dtype=np.float32)
            curve.keyframe_points.foreach_get("co", co_T2)
            co_T2 = co_T2.reshape(-1, 2)
            curves[curve.data_path.split('"')[1]] = co_T2[:, 0], co_T2[:, 1]
        return curves

    return read


@pytest.fixture
def point_at():
    """Evaluated position of a vertex at a scene frame, subframes allowed."""

    def evaluate(target, frame, vertex=0) -> np.ndarray:
        bpy.context.scene.frame_set(int(frame), subframe=frame % 1)
        evaluated = target.evaluated_get(bpy.context.evaluated_depsgraph_get())
        return np.array(evaluated.data.vertices[vertex].co)

    return evaluate
