# SPDX-License-Identifier: GPL-3.0-or-later
"""What panel and takes refer to is found again after a rename, a move or a copy; what was deleted is gone."""

import json
import os
import shutil

import bpy
import pytest

from wav2sem_blender.blender import compat
from wav2sem_blender.blender.scene import takes
from wav2sem_blender.blender.sound import info, source
from wav2sem_blender.blender.ui import status
from wav2sem_blender.blender.ui.widgets import chosen_target


@pytest.fixture
def panel(head, fake_worker):
    settings = bpy.context.scene.wav2sem
    settings.target = head
    return settings


def action_of(head):
    return head.data.shape_keys.animation_data.action


def test_a_linked_sound_and_a_local_one_of_the_same_name(panel, audio, head, tmp_path):
    sounds = {}
    for place, name in (("library", "ok"), ("here", "ok")):
        folder = tmp_path / place
        folder.mkdir()
        sounds[place] = folder / "line.wav"
        shutil.copy(audio(name), sounds[place])
    block = bpy.data.sounds.load(str(sounds["library"]))
    library = tmp_path / "library.blend"
    bpy.data.libraries.write(str(library), {block}, path_remap="ABSOLUTE")
    bpy.data.sounds.remove(block)
    bpy.data.sounds.load(str(sounds["here"]))
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.sounds = ["line.wav"]
    linked = wanted.sounds[0]
    assert bpy.data.sounds["line.wav"] != linked, "by its name it is the other one"
    panel.source, panel.sound = "SOUND", linked
    sounds["here"].unlink()
    assert bpy.ops.wav2sem.animate() == {"FINISHED"}
    assert action_of(head)["wav2sem_sound"] == linked


def test_a_linked_mesh_of_the_same_name(panel, audio, head, tmp_path):
    library = tmp_path / "library.blend"
    bpy.data.libraries.write(str(library), {head})
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.objects = ["Head"]
    linked = wanted.objects[0]
    bpy.context.scene.collection.objects.link(linked)
    panel.target, panel.filepath = linked, str(audio("ok"))
    with pytest.raises(RuntimeError, match="is linked from another file"):
        bpy.ops.wav2sem.animate()
    assert head.data.shape_keys.animation_data is None, "the local head was not asked to speak"


def test_rebake_follows_the_sound_the_strip_and_the_mesh(panel, audio, head):
    scene = bpy.context.scene
    strips = compat.sequencer_strips(scene.sequence_editor_create())
    strip = strips.new_sound("Line", str(audio("ok")), channel=1, frame_start=11)
    panel.source, panel.strip = "STRIP", "Line"
    assert bpy.ops.wav2sem.animate() == {"FINISHED"}
    record = json.loads(action_of(head)["wav2sem_settings"])
    assert not {"sound_uid", "object_uid"} & set(record), "they mean nothing in the next session"
    strip.name, strip.sound.name, head.name = "Renamed Line", "renamed", "Renamed"
    action_of(head).name = "Renamed Take"
    assert bpy.ops.wav2sem.rebake() == {"FINISHED"}
    panel.source, panel.sound = "SOUND", strip.sound
    assert bpy.ops.wav2sem.animate() == {"FINISHED"}
    strip.sound.name = "renamed again"
    assert bpy.ops.wav2sem.rebake() == {"FINISHED"}


def test_rebake_says_that_the_sound_is_gone(panel, audio, head):
    panel.source, panel.sound = "SOUND", bpy.data.sounds.load(str(audio("ok")))
    bpy.ops.wav2sem.animate()
    bpy.data.sounds.remove(panel.sound)
    with pytest.raises(RuntimeError, match='There is no sound named "ok.wav"'):
        bpy.ops.wav2sem.rebake()


def test_a_deleted_mesh_is_gone_although_the_panel_chose_it(panel, head, audio, tmp_path):
    other = head.copy()
    other.data, other.name = head.data.copy(), "Other"
    bpy.context.scene.collection.objects.link(other)
    panel.filepath = str(audio("ok"))
    bpy.data.scenes[0].collection.objects.unlink(head)
    bpy.context.view_layer.objects.active = other
    assert panel.target == head and chosen_target(bpy.context.scene) is None
    assert status.face_problem(bpy.context) == ""
    assert bpy.ops.wav2sem.animate() == {"FINISHED"}
    assert takes.of_face(other) and not takes.of_face(head)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "saved.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "saved.blend"))
    assert bpy.context.scene.wav2sem.target is None and "Head" not in bpy.data.objects


class TestPaths:
    @pytest.fixture
    def project(self, audio, tmp_path):
        folder = tmp_path / "project"
        (folder / "sound").mkdir(parents=True)
        shutil.copy(audio("ok"), folder / "sound" / "line.wav")
        return folder

    def test_a_file_that_was_never_saved(self, panel, scene_bytes):
        panel.filepath = "//line.wav"
        with pytest.raises(RuntimeError, match=r"//line\.wav is relative to this \.blend file, which was never saved"):
            bpy.ops.wav2sem.animate()
        assert "never saved" in status.sound_problem(bpy.context)

    @pytest.mark.parametrize("path", ["//sound/line.wav", "//sound\\line.wav", "//..\\project\\sound\\line.wav"])
    def test_paths_of_any_system(self, panel, project, path):
        bpy.ops.wm.save_as_mainfile(filepath=str(project / "a.blend"))
        panel.filepath = path
        assert bpy.ops.wav2sem.animate() == {"FINISHED"}
        assert os.path.samefile(info.chosen_path(bpy.context.scene), project / "sound" / "line.wav")
        block = bpy.data.sounds.load(str(project / "sound" / "line.wav"))
        block.filepath = path
        assert source.audio_of_sound(block, project / "job").file.is_file()

    def test_a_file_that_is_saved_elsewhere(self, panel, project, tmp_path):
        bpy.ops.wm.save_as_mainfile(filepath=str(project / "a.blend"))
        panel.filepath = "//sound/line.wav"
        bpy.ops.wm.save_mainfile()
        assert panel.filepath == "//sound/line.wav"
        (tmp_path / "elsewhere").mkdir()
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "elsewhere" / "b.blend"))
        assert bpy.context.scene.wav2sem.filepath == "//../project/sound/line.wav"
        bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "elsewhere" / "b.blend"))
        assert bpy.ops.wav2sem.animate() == {"FINISHED"}
