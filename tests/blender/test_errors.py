# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: one clear sentence, and the file is byte for byte as before."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import bpy
import pytest

from wav2sem_blender.blender.animate import jobs
from wav2sem_blender.blender.tasks.task import running_task
from wav2sem_blender.blender.ui import status
from wav2sem_blender.worker import environment

from . import rna_dump  # noqa: TID252


@pytest.fixture
def fails(scene_bytes, animate):
    """Assert that the operator reports `message` and changes nothing."""

    def check(message: str, name: str = "ok", **options) -> None:
        before = scene_bytes()
        with pytest.raises(RuntimeError, match=message):
            animate(name, **options)
        assert scene_bytes() == before
        assert running_task() is None

    return check


def test_no_such_object(head, fails):
    fails('no object named "Nobody"', object="Nobody")


def test_no_active_object(head, fails):
    bpy.context.view_layer.objects.active = None
    fails("No object is active", object="")


def test_not_a_mesh(head, fails):
    lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "POINT"))
    bpy.context.scene.collection.objects.link(lamp)
    fails("is not a mesh; its type is Light", object="Lamp")


def test_no_faces(fails):
    mesh = bpy.data.meshes.new("Points")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0)], [(0, 1)], [])
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("Head", mesh))
    fails("has no faces")


def test_neither_keys_nor_flame(fails):
    bpy.ops.mesh.primitive_cube_add()
    bpy.context.object.name = "Head"
    fails(r"no shape keys with ARKit names.*Make some with Face > Any Head, or fill in Key Mapping\.$")


def test_eye_keys_alone_cannot_speak(head, fails):
    for block, name in zip(head.data.shape_keys.key_blocks[1:], ("eyeBlinkLeft", "browInnerUp", "x"), strict=True):
        block.name = name
    fails("no shape keys with ARKit names")


@pytest.mark.parametrize("how", ["object", "eye", "collection"])
def test_hidden(head, fails, how):
    if how == "object":
        head.hide_viewport = True
    elif how == "eye":
        head.hide_set(True)
    else:
        collection = bpy.data.collections.new("Hidden")
        bpy.context.scene.collection.children.link(collection)
        collection.objects.link(head)
        bpy.context.scene.collection.objects.unlink(head)
        collection.hide_viewport = True
    fails('"Head" is hidden')


def test_locked_against_selection(head, fails):
    head.hide_select = True
    fails('"Head" cannot be selected')


def test_outside_the_view_layer(head, animate):
    """Compared by Python's view of the file: 5.1 and 5.2 save an address of such a layer, which differs each time."""
    bpy.context.scene.collection.objects.unlink(head)
    bpy.data.scenes.new("Other").collection.objects.link(head)
    bpy.ops.mesh.primitive_cube_add()
    before = rna_dump.dump()
    with pytest.raises(RuntimeError, match="is not in the view layer"):
        animate("ok")
    assert rna_dump.dump() == before
    assert running_task() is None


@pytest.mark.parametrize(
    "change",
    [
        lambda head: setattr(head.data.shape_keys.key_blocks["jawOpen"], "value", 0.25),
        lambda head: setattr(head.data.shape_keys.key_blocks["jawOpen"].data[2], "co", (0, 0, 1e-3)),
        lambda head: head.data.shape_keys.animation_data_create(),
        lambda head: head.data.shape_keys.__setitem__("wav2sem_keys", "jawOpen"),
        lambda head: bpy.data.actions.new("left behind"),
        lambda head: setattr(head, "active_shape_key_index", 2),
        lambda head: setattr(bpy.context.scene, "frame_current", 7),
    ],
)
def test_that_comparison_sees_whatever_could_be_left_behind(head, change):
    before = rna_dump.dump()
    assert rna_dump.dump() == before
    change(head)
    assert rna_dump.dump() != before


def test_edit_mode(head, fails):
    bpy.ops.object.mode_set(mode="EDIT")
    with pytest.raises(RuntimeError, match="Edit Mode"):
        bpy.ops.wav2sem.animate(filepath=__file__, object="Head")


def test_linked_mesh_and_override(head, fails, tmp_path):
    library = tmp_path / "library.blend"
    bpy.data.libraries.write(str(library), {head})
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with bpy.data.libraries.load(str(library), link=True) as (_, target):
        target.objects = ["Head"]
    linked = target.objects[0]
    bpy.context.scene.collection.objects.link(linked)
    fails("is linked from another file")
    linked.override_create(remap_local_usages=True)
    override = next(candidate for candidate in bpy.data.objects if candidate.override_library)
    override.name = "Override"
    fails("is linked from another file|is a library override", object="Override")


def test_muted_key(head, fails):
    head.data.shape_keys.key_blocks["jawOpen"].mute = True
    fails("shape key jawOpen is muted")


def test_driven_key(head, fails):
    head.data.shape_keys.key_blocks["mouthPucker"].driver_add("value")
    fails("driver controls the shape key mouthPucker")


def test_absolute_keys(head, fails):
    head.data.shape_keys.use_relative = False
    fails("absolute shape keys")


def test_solo_track(head, fails):
    keys = head.data.shape_keys
    keys.key_blocks["jawOpen"].keyframe_insert("value", frame=1)
    animation = keys.animation_data
    track = animation.nla_tracks.new()
    track.strips.new("strip", 1, animation.action)
    track.is_solo = True
    fails("an NLA track is solo")


def test_missing_audio(head, scene_bytes, fake_worker):
    before = scene_bytes()
    with pytest.raises(RuntimeError, match=r"nothing\.wav: there is no such audio file"):
        bpy.ops.wav2sem.animate(filepath="/nowhere/nothing.wav", object="Head")
    with pytest.raises(RuntimeError, match="No audio is chosen"):
        bpy.ops.wav2sem.animate(object="Head")
    with pytest.raises(RuntimeError, match='no sound named "x"'):
        bpy.ops.wav2sem.animate(sound="x", object="Head")
    with pytest.raises(RuntimeError, match='no sound strip named "x"'):
        bpy.ops.wav2sem.animate(strip="x", object="Head")
    assert scene_bytes() == before


def test_text_named_m4a(head, scene_bytes, fake_worker, tmp_path):
    path = tmp_path / "notes.m4a"
    path.write_text("hello")
    before = scene_bytes()
    with pytest.raises(RuntimeError, match=r"notes\.m4a: no sound that Blender can read"):
        bpy.ops.wav2sem.animate(filepath=str(path), object="Head")
    assert scene_bytes() == before


def test_unknown_and_corrupted_model(head, fails, tmp_path):
    fails('no model "nowhere". Known are: default', model="nowhere")
    broken = tmp_path / "broken"
    broken.mkdir()
    fails("model.safetensors is damaged", model=str(broken))


def test_errors_of_the_worker(head, fails):
    fails("There is not enough memory", "memory")
    fails(r"Internal error \(KeyError.*worker\.log", "bug")
    fails(r"Internal error \(ValueError: operands could not be broadcast.*worker\.log", "shapes")
    fails(r"The worker ended unexpectedly \(exit status 3\)\. Try again; its log is .*worker\.log", "crash")


def test_worker_killed_in_the_middle(head, fails):
    def kill():
        while jobs._client is None or jobs._client.pid is None or running_task() is None:
            time.sleep(0.02)
        time.sleep(0.5)
        os.kill(jobs._client.pid, signal.SIGKILL)

    jobs.shut_down()
    killer = threading.Thread(target=kill)
    killer.start()
    fails(r"The worker was killed \(SIGKILL\), often because memory ran out", "slow_features")
    killer.join()


def test_neither_engine(head, scene_bytes, monkeypatch, tmp_path, audio, fake_package):
    """A Python without any library, which the preferences could name."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    bare = environment.WorkerEnvironment(
        python=tmp_path / "bare" / "bin" / "python", boot=fake_package / "worker" / "boot.py"
    )
    monkeypatch.setattr(environment, "embedded", lambda: bare)
    monkeypatch.setattr(environment, "REQUIRED_MODULES", ())
    before = scene_bytes()
    with pytest.raises(RuntimeError, match="lacks numpy, soundfile, soxr"):
        bpy.ops.wav2sem.animate(filepath=audio("ok"), object="Head")
    assert scene_bytes() == before


def test_python_of_the_preferences_does_not_exist(head, scene_bytes, addon_preferences, audio):
    addon_preferences.torch_python = "/nowhere/python"
    before = scene_bytes()
    with pytest.raises(RuntimeError, match=r"/nowhere/python: there is no such Python"):
        bpy.ops.wav2sem.animate(filepath=audio("ok"), object="Head")
    assert scene_bytes() == before


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A file system of 256 KiB for the session's folder."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=False).returncode:
        pytest.skip("this machine does not let the test mount a file system")
    jobs.shut_down()
    monkeypatch.setattr(jobs, "_session_folder", lambda: folder / "session")
    yield folder
    jobs.shut_down()
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk_in_the_worker(small_disk, head, fails):
    fails("The disk is full", "fill")


def test_full_disk_while_decoding(small_disk, head, scene_bytes, fake_worker, tmp_path):
    """Blender's own writer would end the whole process here."""
    before = scene_bytes()
    with pytest.raises(RuntimeError, match=r"cannot be written.*No space left"):
        bpy.ops.wav2sem.animate(filepath=str(write_film(tmp_path)), object="Head")
    assert scene_bytes() == before
    assert not list(small_disk.rglob("*.wav"))


def write_film(folder: Path) -> Path:
    """Six seconds of noise in a container that soundfile does not read."""
    import aud
    import numpy as np

    path = folder / "noise.mkv"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (6 * 48000, 1)).astype(np.float32)
    aud.Sound.buffer(samples, 48000).write(str(path), 48000, 1, aud.FORMAT_S16, aud.CONTAINER_MATROSKA, aud.CODEC_PCM)
    return path


def test_the_target_vanishes_meanwhile(head, fake_worker, audio):
    from wav2sem_blender.blender.animate.settings import AnimateSettings

    job = jobs.Job(bpy.context, AnimateSettings(filepath=audio("ok"), object_name="Head"))
    while not job.poll():
        time.sleep(0.02)
    bpy.data.objects.remove(head)
    with pytest.raises(ValueError, match='The mesh "Head" was deleted meanwhile. Undo that, or choose another mesh'):
        job.finish(bpy.context)
    assert not bpy.data.actions


def test_only_one_job_at_a_time_and_cancel(head, fake_worker, audio, scene_bytes):
    from wav2sem_blender.blender.animate.settings import AnimateSettings

    before = scene_bytes()
    job = jobs.Job(bpy.context, AnimateSettings(filepath=audio("slow_features"), object_name="Head"))
    assert not bpy.ops.wav2sem.animate.poll()
    with pytest.raises(ValueError, match="already"):
        jobs.Job(bpy.context, AnimateSettings(filepath=audio("ok"), object_name="Head"))
    while job.fraction < 0.4:
        assert not job.poll()
        time.sleep(0.02)
    assert job.title == "Listening for Sounds"
    pid = jobs._client.pid
    job.cancel()
    assert running_task() is None
    assert not Path(f"/proc/{pid}").exists() or sys.platform != "linux"
    assert scene_bytes() == before


def test_poll_names_what_is_missing():
    assert not bpy.ops.wav2sem.animate.poll()
    with pytest.raises(RuntimeError, match="The scene has no mesh"):
        bpy.ops.wav2sem.animate()


def test_a_linked_character_as_an_instance(head, fails):
    collection = bpy.data.collections.new("Anna")
    collection.objects.link(head)
    instance = bpy.data.objects.new("Anna Instance", None)
    instance.instance_type, instance.instance_collection = "COLLECTION", collection
    bpy.context.scene.collection.objects.link(instance)
    fails('shows the collection "Anna".*Make a library override of it', object="Anna Instance")
    bpy.context.view_layer.objects.active = instance
    words, icon = status.face_words(bpy.context)[0]
    assert (
        words == '"Anna Instance" shows the collection "Anna"; make a library override of it first' and icon == "ERROR"
    )
