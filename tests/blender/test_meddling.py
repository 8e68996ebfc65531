# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user may change while a run is in progress: it goes on, or fails with one sentence and an unchanged file."""

import subprocess
import sys
import time
from pathlib import Path

import bpy
import numpy as np
import pytest

from tests.processes import is_running
from wav2sem_blender.blender.animate import jobs
from wav2sem_blender.blender.animate.settings import AnimateSettings
from wav2sem_blender.blender.scene.write_motion import applying
from wav2sem_blender.blender.tasks.task import running_task
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.time_slicing import at_once, for_a_while
from wav2sem_blender.pipeline.upper_face import Settings as UpperFaceSettings
from wav2sem_blender.pipeline.visemes import VRM

from . import rna_dump  # noqa: TID252
from .applied import apply_motion  # noqa: TID252
from .conftest import KEY_DIRECTIONS  # noqa: TID252

TITLES = {
    "model": "Loading the Model",
    "audio": "Reading the Audio",
    "prosody": "Listening for Stress",
    "semantics": "Listening for Meaning",
    "features": "Listening for Sounds",
    "motion": "Moving the Face",
    "visemes": "Shaping Visemes",
}
LIDS = ("eyeBlinkLeft", "eyeBlinkRight")
VOWELS = ("A", "I", "U", "E", "O")


@pytest.fixture
def start_at(fake_worker, audio, tmp_path):
    """Start a run of "Head" and return it when it lingers in a stage; the file "go" lets it continue."""

    def start(stage: str, **settings) -> jobs.Job:
        if stage == "model":
            settings["model"] = str(tmp_path / "slow_model")
            Path(settings["model"]).mkdir()
        settings.setdefault("object_name", "Head")
        job = jobs.Job(bpy.context, AnimateSettings(filepath=audio(f"slow_{stage}"), **settings))
        end_s = time.monotonic() + 60
        while job.title != TITLES[stage]:
            assert not job.poll(), f"the run never came to {stage}"
            assert time.monotonic() < end_s, f"{job.title}, not {TITLES[stage]}"
            time.sleep(0.02)
        return job

    yield start
    if running_task() is not None:
        running_task().cancel()


@pytest.fixture
def finish(tmp_path):
    """Let a run continue, and write its curves."""

    def to_the_end(job: jobs.Job):
        (tmp_path / "go").touch()
        while not job.poll():
            time.sleep(0.02)
        return job.finish(bpy.context)

    return to_the_end


@pytest.fixture
def fails(scene_bytes, finish):
    """Assert that a run ends with `message` and changes nothing."""

    def check(job: jobs.Job, message: str) -> None:
        before = scene_bytes()
        with pytest.raises((ValueError, OSError), match=message):
            finish(job)
        assert scene_bytes() == before
        assert running_task() is None

    return check


@pytest.fixture
def vowels(head):
    """The head with VRM's vowels as keys."""
    for block in head.data.shape_keys.key_blocks[1:]:
        head.shape_key_remove(block)
    for number, name in enumerate(VOWELS):
        head.shape_key_add(name=name, from_mix=False).data[0].co[number % 3] += 1.0
    return head


def curves_in(action) -> list:
    return [curve for layer in action.layers for bag in layer.strips[0].channelbags for curve in bag.fcurves]


class TestCancel:
    """The worker ends, its files are removed, the file is byte for byte as before, and the next run works."""

    def check(self, job, scene_bytes, before):
        pid = jobs._client.pid
        job.cancel()
        assert running_task() is None and not is_running(pid)
        assert not list(jobs._client.folder.glob("job*"))
        assert scene_bytes() == before

    @pytest.mark.parametrize("stage", ["model", "audio", "prosody", "semantics", "features", "motion"])
    def test_speech(self, stage, head, start_at, scene_bytes):
        before = scene_bytes()
        job = start_at(stage, upper_face=UpperFaceSettings())
        assert 0.0 <= job.fraction < 1.0
        self.check(job, scene_bytes, before)

    def test_visemes(self, vowels, start_at, scene_bytes):
        before = scene_bytes()
        self.check(start_at("visemes"), scene_bytes, before)

    @pytest.mark.parametrize("stage", ["audio", "prosody"])
    def test_the_upper_face_alone(self, stage, head, start_at, scene_bytes):
        for name in LIDS:
            head.shape_key_add(name=name, from_mix=False)
        before = scene_bytes()
        self.check(start_at(stage, upper_face_only=True), scene_bytes, before)

    def test_half_written(self, head):
        """Blender quits while the curves are being written."""
        before = rna_dump.dump()
        steps = applying(bpy.context, head, arkit_motion(3000))
        while not any(curves_in(action) for action in bpy.data.actions):
            assert for_a_while(steps, 0.0) is None
        steps.close()
        assert not bpy.data.actions
        assert rna_dump.dump() == before

    def test_the_next_run_works(self, head, start_at, animate):
        start_at("features").cancel()
        assert animate("ok") == {"FINISHED"}


class TestMesh:
    def test_renamed(self, head, start_at, finish, curves_of):
        job = start_at("features")
        head.name = "Anna"
        other = head.copy()
        other.data = head.data.copy()
        other.name = "Head"
        bpy.context.scene.collection.objects.link(other)
        assert finish(job).object_name == "Anna"
        assert set(curves_of(head)) == set(KEY_DIRECTIONS)
        assert '"object_name": "Anna"' in head.data.shape_keys.animation_data.action["wav2sem_settings"]
        assert other.data.shape_keys.animation_data is None

    def test_deleted(self, head, start_at, fails):
        job = start_at("features")
        bpy.data.objects.remove(head)
        fails(job, r'The mesh "Head" was deleted meanwhile\. Undo that, or choose another mesh')

    @pytest.mark.parametrize("mode", ["EDIT", "SCULPT"])
    def test_another_mode(self, head, start_at, finish, mode):
        """Blender saves such a file differently each time, so the data is compared instead of the bytes."""
        job = start_at("features")
        bpy.ops.object.mode_set(mode=mode)
        with pytest.raises(ValueError, match="Mode. Return to Object Mode first"):
            finish(job)
        bpy.ops.object.mode_set(mode="OBJECT")
        assert not bpy.data.actions and head.data.shape_keys.animation_data is None
        assert head.data.shape_keys.key_blocks.keys() == ["Basis", *KEY_DIRECTIONS]

    def test_hidden(self, head, start_at, fails):
        job = start_at("features")
        head.hide_set(True)
        fails(job, '"Head" is hidden. Show it')

    def test_one_key_deleted(self, head, start_at, finish, curves_of):
        job = start_at("features")
        head.shape_key_remove(head.data.shape_keys.key_blocks["mouthPucker"])
        outcome = finish(job)
        assert outcome.warnings[0].startswith("No shape key for mouthPucker; the other keys make up for them")
        assert set(curves_of(head)) == {"jawOpen", "mouthSmile_L"}

    def test_all_keys_deleted(self, head, start_at, fails):
        job = start_at("features")
        head.shape_key_clear()
        fails(job, '"Head" has no shape keys with ARKit names .* Make some with Face > Any Head')

    def test_keys_deleted_between_two_runs(self, head, animate, curves_of):
        animate("ok")
        head.shape_key_remove(head.data.shape_keys.key_blocks["mouthPucker"])
        animate("ok")
        assert set(curves_of(head)) == {"jawOpen", "mouthSmile_L"}, "the deleted key's curve is gone as well"
        assert len(bpy.data.actions) == 1

    def test_a_face_without_a_mouth_still_blinks(self, head, start_at, finish):
        for block, name in zip(head.data.shape_keys.key_blocks[1:], (*LIDS, "browInnerUp"), strict=True):
            block.name = name
        with pytest.raises(ValueError, match="no shape keys with ARKit names"):
            start_at("features")
        assert finish(start_at("prosody", upper_face_only=True)).n_curves == 3

    def test_a_mouth_without_lids_is_no_reason_to_warn(self, head, start_at, finish):
        outcome = finish(start_at("features", upper_face=UpperFaceSettings()))
        assert outcome.warnings == ()
        assert any('"Head" has no shape keys for lids' in note for note in outcome.notes)


class TestAction:
    @pytest.mark.parametrize("when", ["meanwhile", "between two runs"])
    def test_deleted(self, head, start_at, finish, animate, curves_of, when):
        animate("ok")
        if when == "meanwhile":
            job = start_at("features")
            bpy.data.actions.remove(bpy.data.actions[0])
            finish(job)
        else:
            bpy.data.actions.remove(bpy.data.actions[0])
            animate("ok")
        assert set(curves_of(head)) == set(KEY_DIRECTIONS)
        assert len(bpy.data.actions) == 1

    def test_renamed(self, head, start_at, finish, animate, curves_of):
        animate("ok")
        bpy.data.actions[0].name = "My Take"
        animate("ok")
        assert bpy.data.actions.keys() == ["My Take"]


class TestAudio:
    """The file is read once and not needed afterwards."""

    def test_moved_after_it_was_read(self, head, start_at, finish, curves_of, tmp_path):
        for name in LIDS:
            head.shape_key_add(name=name, from_mix=False)
        job = start_at("features", upper_face=UpperFaceSettings())
        (tmp_path / "slow_features.wav").rename(tmp_path / "elsewhere.wav")
        assert finish(job).warnings == ()
        assert set(KEY_DIRECTIONS) <= set(curves_of(head))

    @pytest.mark.parametrize("stage", ["model", "audio"])
    def test_moved_before(self, head, start_at, fails, tmp_path, stage):
        job = start_at(stage)
        (tmp_path / f"slow_{stage}.wav").unlink()
        fails(job, rf"slow_{stage}\.wav: there is no such audio file\. Choose it again where it is now")


class TestScene:
    @pytest.fixture
    def other(self):
        return bpy.data.scenes.new("Other")

    def test_switched(self, head, start_at, finish, curves_of, other):
        """The run ends in the scene where it began, at that scene's rate."""
        bpy.context.scene.render.fps = 30
        other.render.fps = 10
        job = start_at("features")
        bpy.context.window.scene = other
        assert finish(job).n_frames == 61
        assert bpy.context.scene == other
        assert len(curves_of(head)["jawOpen"][0]) == 61

    def test_renamed(self, head, start_at, finish, curves_of):
        job = start_at("features")
        bpy.context.scene.name = "Shot 12"
        finish(job)
        assert set(curves_of(head)) == set(KEY_DIRECTIONS)

    def test_deleted(self, head, start_at, fails, other):
        other.collection.objects.link(head)
        job = start_at("features")
        first = bpy.context.scene
        bpy.context.window.scene = other
        bpy.data.scenes.remove(first)
        fails(job, r'The scene "Scene" was deleted meanwhile\. Undo that')

    def test_another_view_layer(self, head, start_at, finish, curves_of):
        """The window then shows a layer without the head."""
        job = start_at("features")
        layer = bpy.context.scene.view_layers.new("Empty")
        layer.layer_collection.exclude = True
        collection = bpy.data.collections.new("Heads")
        bpy.context.scene.collection.children.link(collection)
        collection.objects.link(head)
        bpy.context.scene.collection.objects.unlink(head)
        layer.layer_collection.children["Heads"].exclude = True
        bpy.context.window.view_layer = layer
        finish(job)
        assert set(curves_of(head)) == set(KEY_DIRECTIONS)

    @pytest.mark.parametrize(("fps", "fps_base"), [(24, 1.001), (60, 1.0)])
    def test_another_frame_rate(self, head, start_at, finish, curves_of, fps, fps_base):
        """The rate at the end counts: the jaw opens widest one second after the first frame."""
        job = start_at("features", start_frame=11)
        bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = fps, fps_base
        finish(job)
        frames_T, jaw_T = curves_of(head)["jawOpen"]
        assert frames_T[jaw_T.argmax()] == 11 + fps
        assert len(frames_T) == round(61 / 30 * fps / fps_base)

    def test_undone(self, head, start_at, finish, curves_of):
        """Undo replaces every data-block; the run continues with the mesh as it is then."""
        head.location.x = 1.0
        bpy.ops.ed.undo_push(message="First")
        head.location.x = 2.0
        bpy.ops.ed.undo_push(message="Second")
        job = start_at("features")
        bpy.ops.ed.undo()
        finish(job)
        assert bpy.data.objects["Head"].location.x == 1.0
        assert set(curves_of(bpy.data.objects["Head"])) == set(KEY_DIRECTIONS)


def arkit_motion(n_frames: int = 61) -> Motion:
    """The fake animator's motion, of any length."""
    time_T = np.arange(n_frames) / 30
    jaw_T = 1 - np.abs(time_T % 2 - 1)
    return Motion(
        weights_TK=np.stack([jaw_T, 0.9 * np.minimum(time_T, 2.0), -0.25 * jaw_T], axis=1),
        channels=("jawOpen", "mouthPucker", "mouthSmileLeft"),
        fps=30.0,
        info={"audio": "slow_visemes.wav", "audio_sha256": "ab" * 32},
    )


class TestVisemes:
    """The worker makes them, because those of a long recording take seconds."""

    def test_they_are_those_that_blender_would_make(self, vowels, start_at, finish, curves_of):
        bpy.context.scene.render.fps = 30
        finish(start_at("visemes", strength=0.7))
        by_worker = curves_of(vowels)
        apply_motion(bpy.context, vowels, arkit_motion(), strength=0.7)
        assert set(by_worker) == set(VRM.names)
        for name, (_, values_T) in curves_of(vowels).items():
            np.testing.assert_allclose(by_worker[name][1], values_T, atol=1e-6)

    def test_blender_makes_none_itself(self, vowels, start_at, finish, monkeypatch):
        job = start_at("visemes")
        monkeypatch.setattr("wav2sem_blender.blender.scene.plan.as_visemes", None)
        finish(job)

    def test_a_key_deleted_meanwhile(self, vowels, start_at, finish, curves_of):
        """Blender then makes the visemes itself, of the keys that are left."""
        bpy.context.scene.render.fps = 30
        bpy.ops.wav2sem.guess_mapping()
        job = start_at("visemes")
        vowels.shape_key_remove(vowels.data.shape_keys.key_blocks["E"])
        finish(job)
        by_run = curves_of(vowels)
        apply_motion(bpy.context, vowels, arkit_motion())
        assert set(by_run) == set(VRM.names) - {"E"}
        np.testing.assert_allclose(by_run["O"][1], curves_of(vowels)["O"][1], atol=1e-6)


def test_slices_write_what_one_go_writes(head, curves_of):
    steps, slices = applying(bpy.context, head, arkit_motion()), 1
    while for_a_while(steps, 0.0) is None:
        slices += 1
    assert slices > len(KEY_DIRECTIONS)
    sliced = curves_of(head)
    at_once(applying(bpy.context, head, arkit_motion()))
    for name, (frames_T, values_T) in curves_of(head).items():
        np.testing.assert_array_equal(sliced[name], (frames_T, values_T))


def test_ten_minutes_are_written_in_short_slices(head):
    """52 keys, 36,000 frames each: no slice blocks the interface noticeably."""
    for number in range(49):
        head.shape_key_add(name=f"other{number}", from_mix=False)
    bpy.context.scene.render.fps = 60
    names = [block.name for block in head.data.shape_keys.key_blocks[1:]]
    weights_TK = np.random.default_rng(0).uniform(0, 1, (18_000, len(names)))
    motion = Motion(weights_TK=weights_TK, channels=tuple(names), fps=30.0, info={"audio": "long.wav"})
    steps, slices_s, outcome = applying(bpy.context, head, motion), [], None
    while outcome is None:
        start_s = time.thread_time()
        outcome = for_a_while(steps, 0.015)
        slices_s.append(time.thread_time() - start_s)
    assert outcome.n_curves == 52 and outcome.n_frames == 36_000
    print(f"{len(slices_s)} slices, the longest {1e3 * max(slices_s):.0f} ms, together {1e3 * sum(slices_s):.0f} ms")
    assert max(slices_s) < 0.05, slices_s


A_BLENDER = """
import os, sys, time
from pathlib import Path
import bpy
import wav2sem_blender
from wav2sem_blender.blender.animate import jobs
from wav2sem_blender.blender.animate.settings import AnimateSettings
from wav2sem_blender.worker import environment

boot, audio, way = sys.argv[1:]
fake = environment.WorkerEnvironment(python=Path(sys.executable), boot=Path(boot))
environment.embedded = lambda: fake
wav2sem_blender.register()
bpy.ops.mesh.primitive_cube_add()
for name in ("Basis", "jawOpen"):
    bpy.context.object.shape_key_add(name=name)
job = jobs.Job(bpy.context, AnimateSettings(filepath=audio))
while job.title != "Listening for Sounds":
    assert not job.poll()
    time.sleep(0.02)
print("working", jobs._client.pid, jobs._client.folder, flush=True)
if way == "kill":
    time.sleep(60)
if way == "unregister":
    wav2sem_blender.unregister()
"""


@pytest.mark.parametrize("way", ["kill", "exit", "unregister"])
def test_blenders_end_is_the_workers(fake_package, audio, way):
    """Blender is killed, exits, or the add-on is switched off in mid-job: no process and no folder is left."""
    boot = fake_package / "worker" / "boot.py"
    command = [sys.executable, "-c", A_BLENDER, str(boot), audio("slow_features"), way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as blender:
        line = next(line for line in blender.stdout if line.startswith("working "))
        pid, folder = int(line.split()[1]), Path(line.split()[2])
        if way == "kill":
            blender.kill()
        else:
            assert blender.wait(30) == 0
    end_s = time.monotonic() + 20
    while is_running(pid) or folder.exists():
        assert time.monotonic() < end_s, f"process {pid} runs: {is_running(pid)}; {folder} is there: {folder.exists()}"
        time.sleep(0.05)
