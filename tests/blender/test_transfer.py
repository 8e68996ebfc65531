# SPDX-License-Identifier: GPL-3.0-or-later
"""Any Head: landmarks as empties, keys that open the mouth, and parts that follow by drivers."""

import threading
import time

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs Blender as a module (pip install bpy)")

from wav2sem_blender.blender.scene import any_head, character, upper_face  # noqa: E402
from wav2sem_blender.blender.tasks.task import running_task  # noqa: E402
from wav2sem_blender.blender.ui.any_head import WAV2SEM_PT_transfer  # noqa: E402
from wav2sem_blender.pipeline.any_head.transfer import LANDMARKS, TemplateFace  # noqa: E402

BOX = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


@pytest.fixture(scope="module")
def known():
    return TemplateFace.load()


@pytest.fixture
def bare_head(known):
    """The template face as a user's head: 10 units to the metre, rotated and moved by its object; z is up."""
    from .conftest import add_mesh  # noqa: TID252

    made = add_mesh("Bare", (10 * known.points_S3).tolist(), known.triangles_F3.tolist())
    made.rotation_euler = (np.pi / 2, 0, 0)
    made.location = (1, 2, 3)
    bpy.context.view_layer.update()
    return made


@pytest.fixture
def landmarks(known, bare_head):
    """Place all landmarks at their exact positions, as by hand."""
    for name, place_3 in zip(LANDMARKS, known.landmarks_L3, strict=True):
        empty = bpy.data.objects.new(name, None)
        empty[any_head.LANDMARK_PROPERTY] = name
        bpy.context.scene.collection.objects.link(empty)
        empty.parent = bare_head
        empty.location = 10 * place_3
    bpy.context.view_layer.update()


def offsets(target, key):
    """Offsets (V, 3) of a shape key."""
    blocks = target.data.shape_keys.key_blocks
    return np.array([np.array(a.co) - np.array(b.co) for a, b in zip(blocks[key].data, blocks[0].data, strict=True)])


def test_the_keys_are_the_known_faces(known, bare_head, landmarks):
    bpy.ops.mesh.primitive_cube_add(location=(50, 0, 0))  # also selected, but not a part of the head
    stranger = bpy.context.object
    bpy.context.view_layer.objects.active = bare_head
    with pytest.raises(ValueError, match="eyeBlinkLeft"):
        upper_face.check_upper_face(bpy.context, bare_head)
    assert bpy.ops.wav2sem.create_speech_keys() == {"FINISHED"}
    upper_face.check_upper_face(bpy.context, bare_head)
    blocks = bare_head.data.shape_keys.key_blocks
    assert [block.name for block in blocks] == ["Basis", *known.channels]
    assert all(block.value == 0 for block in blocks[1:])
    k = known.channels.index("jawOpen")
    error = np.linalg.norm(offsets(bare_head, "jawOpen") / 10 - known.offsets_KS3[k], axis=1)
    assert np.percentile(error, 90) < 0.001
    assert stranger.data.shape_keys is None
    # A second run updates our keys and keeps the user's.
    blocks["mouthPucker"].name = "Mouth_Pucker"
    bare_head.data.shape_keys[any_head.MADE_PROPERTY] = "jawOpen"
    blocks["jawOpen"].data[0].co.z += 7
    kept = offsets(bare_head, "Mouth_Pucker")
    assert bpy.ops.wav2sem.create_speech_keys() == {"FINISHED"}
    assert np.abs(offsets(bare_head, "jawOpen")[0]).max() < 1
    np.testing.assert_array_equal(offsets(bare_head, "Mouth_Pucker"), kept)
    assert "mouthPucker" not in bare_head.data.shape_keys.key_blocks


def test_a_lower_tooth_follows_the_jaw_by_drivers(known, bare_head, landmarks):
    from .conftest import add_mesh  # noqa: TID252

    mark = dict(zip(LANDMARKS, known.landmarks_L3, strict=True))
    seam = (mark["upper_lip"] + mark["lower_lip"]) / 2
    teeth = {}
    for name, height in (("Lower", -0.007), ("Upper", 0.007)):
        middle = 10 * (seam + [0, height, -0.015])
        corners = [middle + 0.03 * np.array([x, y, z]) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
        teeth[name] = add_mesh(name, [tuple(corner) for corner in corners], BOX)
        teeth[name].parent = bare_head
    bpy.context.view_layer.objects.active = bare_head
    assert bpy.ops.wav2sem.create_speech_keys() == {"FINISHED"}
    assert teeth["Upper"].data.shape_keys is None
    assert np.linalg.norm(offsets(teeth["Lower"], "jawOpen"), axis=1).min() > 0.1
    bare_head.data.shape_keys.key_blocks["jawOpen"].value = 0.5
    bpy.context.view_layer.update()
    keys = teeth["Lower"].data.shape_keys.evaluated_get(bpy.context.evaluated_depsgraph_get())
    assert keys.key_blocks["jawOpen"].value == pytest.approx(0.5)


def test_landmarks_are_placed_on_a_guess_and_removed(known, bare_head):
    assert bpy.ops.wav2sem.place_landmarks() == {"FINISHED"}
    bpy.context.view_layer.update()
    placed = any_head.landmark_empties(bare_head)
    assert set(placed) == set(LANDMARKS)
    for name, place_3 in zip(LANDMARKS, known.landmarks_L3, strict=True):
        there = np.array(bare_head.matrix_world.inverted() @ placed[name].matrix_world.translation) / 10
        assert np.linalg.norm(there - place_3) < 0.010, name
    assert bpy.ops.wav2sem.remove_landmarks() == {"FINISHED"}
    assert any_head.landmark_empties(bare_head) == {} and bare_head.data.shape_keys is None


def test_what_is_no_face_is_refused_and_untouched():
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object
    with pytest.raises(RuntimeError, match="No face was found on this mesh"):
        bpy.ops.wav2sem.create_speech_keys()
    assert cube.data.shape_keys is None
    # Landmarks are placed all the same, for the user to drag.
    assert bpy.ops.wav2sem.place_landmarks() == {"FINISHED"}
    assert set(any_head.landmark_empties(cube)) == set(LANDMARKS)


def test_too_many_vertices_are_refused(bare_head, monkeypatch):
    monkeypatch.setattr(character, "MAX_VERTICES", 100)
    with pytest.raises(RuntimeError, match="the limit is 100"):
        bpy.ops.wav2sem.create_speech_keys()


def test_the_panel_is_for_faces_that_cannot_speak(bare_head, head):
    bpy.context.view_layer.objects.active = bare_head
    assert WAV2SEM_PT_transfer.poll(bpy.context)
    bpy.context.view_layer.objects.active = head
    assert not WAV2SEM_PT_transfer.poll(bpy.context)


class TestBesideTheInterface:
    """As in a window: a thread computes while the user goes on working."""

    @pytest.fixture
    def creating(self, bare_head, landmarks):
        """Start the task in Object Mode."""
        bpy.context.view_layer.objects.active = bare_head
        bpy.ops.ed.undo_push(message="Landmarks")

        def start():
            return any_head.creating_keys(bare_head, bpy.context)

        yield start
        if running_task() is not None:
            running_task().cancel()

    @pytest.fixture
    def at_once(self, monkeypatch):
        """Replace the computation by a constant; its result does not matter here."""
        zeros = lambda known, points_N3, *_: np.zeros((len(known.channels), *points_N3.shape))  # noqa: E731
        monkeypatch.setattr(any_head, "transfer", zeros)

    @staticmethod
    def to_the_end(job):
        """Poll and write, as the operator does."""
        end_s = time.monotonic() + 120
        while not job.poll():
            assert time.monotonic() < end_s
            time.sleep(0.02)
        return job.write(bpy.context)

    def test_it_is_what_a_script_gets(self, bare_head, creating):
        job = creating()
        assert running_task() is job and bare_head.data.shape_keys is None
        made = self.to_the_end(job)
        assert made.startswith('"Bare" has ') and 0 < job.fraction <= 1
        assert running_task() is None
        beside = offsets(bare_head, "jawOpen")
        bare_head.shape_key_clear()
        assert bpy.ops.wav2sem.create_speech_keys() == {"FINISHED"}
        np.testing.assert_array_equal(offsets(bare_head, "jawOpen"), beside)

    def test_landmarks_too(self, bare_head):
        bpy.context.view_layer.objects.active = bare_head
        assert self.to_the_end(any_head.placing_landmarks(bare_head, bpy.context)) is True
        assert set(any_head.landmark_empties(bare_head)) == set(LANDMARKS)

    def test_cancelled_it_changes_nothing_and_its_thread_ends(self, bare_head, creating):
        job = creating()
        (thread,) = (thread for thread in threading.enumerate() if thread.name == job.title)
        assert bpy.ops.wav2sem.cancel() == {"FINISHED"}
        assert running_task() is None
        thread.join(60)
        assert not thread.is_alive() and bare_head.data.shape_keys is None
        assert job.fraction < 1

    def test_two_at_once_are_refused(self, bare_head, creating, at_once):
        job = creating()
        for operator in (bpy.ops.wav2sem.create_speech_keys, bpy.ops.wav2sem.place_landmarks):
            with pytest.raises(RuntimeError, match="Keys are being made; press Esc to cancel it"):
                operator()
        with pytest.raises(ValueError, match=r"^Keys are being made already\. Wait for it"):
            any_head.placing_landmarks(bare_head, bpy.context)
        self.to_the_end(job)

    def test_an_error_is_told_when_it_is_looked_at(self, known, bare_head, creating):
        any_head.landmark_empties(bare_head)["chin"].location = (300, 0, 0)
        bpy.context.view_layer.update()
        with pytest.raises(ValueError, match="do not form a face"):
            self.to_the_end(creating())
        assert running_task() is None and bare_head.data.shape_keys is None

    @pytest.mark.parametrize("what", ["a vertex", "vertices", "a key", "Edit Mode", "the object"])
    def test_edited_meanwhile(self, bare_head, creating, at_once, what):
        job, mesh = creating(), bare_head.data
        if what == "a vertex":
            mesh.vertices[0].co.x += 1
        elif what == "vertices":
            mesh.vertices.add(1)
        elif what == "a key":
            bare_head.shape_key_add(name="Smirk")
        elif what == "Edit Mode":
            bpy.ops.object.mode_set(mode="EDIT")
        else:
            bpy.data.objects.remove(bare_head)
        keys = mesh.shape_keys.key_blocks.keys() if mesh.shape_keys else None
        with pytest.raises(ValueError, match=r'^"Bare" was (edited|removed) meanwhile, so nothing was changed\.'):
            self.to_the_end(job)
        assert (mesh.shape_keys.key_blocks.keys() if mesh.shape_keys else None) == keys
        assert running_task() is None

    def test_moved_renamed_and_undone_meanwhile(self, bare_head, creating):
        """None of these edits the mesh. Undo replaces the Python objects."""
        job = creating()
        bare_head.name = "Renamed"
        bare_head.location.x += 5
        bpy.ops.ed.undo_push(message="Moved")
        bpy.ops.ed.undo()
        bpy.data.objects["Bare"].location.z += 5
        assert self.to_the_end(job).startswith('"Bare" has ')
        moved = offsets(bpy.data.objects["Bare"], "jawOpen")
        assert 0.1 < np.abs(moved).max() < 1
