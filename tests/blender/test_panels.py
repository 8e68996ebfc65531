# SPDX-License-Identifier: GPL-3.0-or-later
"""The panels' texts: what was chosen and recognised, why a button is disabled; and the settings that shape the keys."""

import json
import os
import time
import wave
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.animate import jobs
from wav2sem_blender.blender.scene.demo_head import build_demo_head
from wav2sem_blender.blender.sound import info as sound_info
from wav2sem_blender.blender.sound import playback
from wav2sem_blender.blender.tasks import task as task_module
from wav2sem_blender.blender.tasks.task import running_task
from wav2sem_blender.blender.ui import animate as ui_animate
from wav2sem_blender.blender.ui import panels, presets_menu, properties, status, widgets
from wav2sem_blender.blender.ui.playback import WAV2SEM_OT_play_speech

RATE_HZ = 8000


def write_wav(path, seconds, n_channels):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(n_channels)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(np.random.default_rng(0).bytes(2 * n_channels * round(seconds * RATE_HZ)))
    return path


@pytest.fixture
def wav(tmp_path):
    """Two seconds of stereo noise."""
    return write_wav(tmp_path / "voice.wav", 2, 2)


@pytest.fixture
def chosen():
    return bpy.context.scene.wav2sem


def reason() -> str:
    return status.run_disabled_reason(bpy.context) or status.speak_disabled_reason(bpy.context)


class Layout:
    """Records what a panel draws, and in which state."""

    def __init__(self, above=None):
        self.above, self.enabled = above, True
        self.rows = [] if above is None else above.rows

    def _part(self, *_args, **_options):
        return Layout(self)

    def _is_on(self):
        return self.enabled and (self.above is None or self.above._is_on())

    row = column = split = _part

    def label(self, text="", icon="NONE", icon_value=None):
        if icon_value is not None:  # a piece of a picture
            return
        self.rows.append(("label", text, self._is_on()))

    def prop(self, owner, name, **_options):
        assert name in owner.bl_rna.properties
        self.rows.append(("prop", name, self._is_on()))

    def operator(self, name, **_options):
        self.rows.append(("operator", name, self._is_on()))

    def progress(self, factor, text):
        self.rows.append(("progress", text, self._is_on()))

    def separator(self):
        pass


def drawn(panel) -> list[tuple[str, str, bool]]:
    layout = Layout()
    panel.draw(SimpleNamespace(layout=layout), bpy.context)
    return layout.rows


class TestReasons:
    def test_the_sound(self, head, chosen, wav):
        assert reason() == "Choose an audio file"
        chosen.filepath = str(wav.with_name("gone.wav"))
        assert reason().startswith('There is no file "gone.wav" in ') and reason().endswith("where it lies now")
        chosen.filepath = str(wav.parent)
        assert reason() == f'"{wav.parent.name}" is a folder; choose an audio file'
        text = wav.with_name("words.txt")
        text.write_text("no sound")
        chosen.filepath = str(text)
        assert reason() == '"words.txt" has no sound that Blender can read; choose another file'
        chosen.filepath = str(wav)
        assert reason() == ""
        for source, words in (("STRIP", "sound strip"), ("SOUND", "sound"), ("SPEAKER", "speaker")):
            chosen.source = source
            assert reason() == f"Choose a {words}"
        chosen.source, chosen.strip = "STRIP", "gone"
        assert reason() == 'The sequencer has no sound strip "gone"; choose another one'

    def test_the_range(self, head, chosen, wav):
        chosen.filepath, chosen.use_range = str(wav), True
        assert reason() == ""
        chosen.range_start_s, chosen.range_end_s = 1.5, 1.0
        assert reason() == "The range ends at 1.00 s but begins at 1.50 s. Raise To, or lower From."
        chosen.range_start_s, chosen.range_end_s = 2.5, 0.0
        assert reason() == "The sound ends at 2.00 s, before the range begins; lower From"
        chosen.use_range = False
        assert reason() == ""

    def test_the_face(self, head, chosen, wav):
        chosen.filepath = str(wav)
        bpy.context.view_layer.objects.active = None
        assert reason() == "Choose a mesh, or select one"
        chosen.target = head
        assert reason() == ""
        head.hide_viewport = True
        assert "hidden" in reason()
        head.hide_viewport = False
        head.data.shape_keys.key_blocks["jawOpen"].mute = True
        assert reason() == '"Head": the shape key jawOpen is muted. Unmute it first.'
        bpy.data.objects.remove(head)
        assert reason() == "The scene has no mesh; add or import a head first"

    def test_edit_mode(self, head, chosen, wav):
        chosen.filepath = str(wav)
        with bpy.context.temp_override(active_object=head, object=head):
            bpy.ops.object.mode_set(mode="EDIT")
            try:
                assert '"Head" is in Edit Mode' in reason()
            finally:
                bpy.ops.object.mode_set(mode="OBJECT")
        assert reason() == ""

    def test_a_cube(self, chosen, wav):
        bpy.ops.mesh.primitive_cube_add()
        chosen.filepath = str(wav)
        assert reason() == '"Cube" has no face keys; create them with Any Head, or add the demo head'
        offer = ("operator", "wav2sem.add_demo_head", True)
        assert offer in drawn(panels.WAV2SEM_PT_face)
        cube, head = bpy.context.object, build_demo_head()
        bpy.context.view_layer.objects.active = cube
        assert offer not in drawn(panels.WAV2SEM_PT_face), "there is a face, it is only not chosen"
        bpy.context.scene.collection.objects.unlink(head)
        assert offer in drawn(panels.WAV2SEM_PT_face)

    def test_only_the_panels_button_asks_for_the_panels_settings(self, head):
        """A script passes its own file and mesh."""
        assert ui_animate.WAV2SEM_OT_animate.disabled_reason(bpy.context) == ""
        region, area = SimpleNamespace(type="UI"), SimpleNamespace(type="VIEW_3D")
        in_sidebar = SimpleNamespace(
            region=region, area=area, scene=bpy.context.scene, view_layer=bpy.context.view_layer
        )
        assert ui_animate.WAV2SEM_OT_animate.disabled_reason(in_sidebar) == "Choose an audio file"


class TestWords:
    def test_the_sound(self, chosen, wav):
        chosen.filepath = str(wav)
        assert sound_info.chosen_info(bpy.context.scene).words() == "2.0 s, 8 kHz, stereo"

    def test_a_file_that_changed_is_read_again(self, chosen, wav):
        chosen.filepath = str(wav)
        assert sound_info.chosen_info(bpy.context.scene).duration_s == 2
        write_wav(wav, 1, 1)
        os.utime(wav, (1, 1))
        assert sound_info.chosen_info(bpy.context.scene).words() == "1.0 s, 8 kHz, mono"

    def test_strip_sound_and_speaker(self, chosen, wav):
        scene = bpy.context.scene
        scene.render.fps = 25
        strips = ui_animate.compat.sequencer_strips(scene.sequence_editor_create())
        strip = strips.new_sound("Line", str(wav), 1, 31)
        chosen.source, chosen.strip = "STRIP", "Line"
        assert sound_info.chosen_info(scene).words() == "2.0 s, 8 kHz, stereo"
        assert properties.start_frame(scene) == 31
        block = strip.sound
        chosen.source, chosen.sound = "SOUND", block
        assert sound_info.chosen_info(scene).duration_s == 2
        assert properties.start_frame(scene) == 1
        block.pack()
        assert "8 kHz, stereo" in sound_info.chosen_info(scene).words()
        speaker = bpy.data.objects.new("Speaker", bpy.data.speakers.new("Speaker"))
        scene.collection.objects.link(speaker)
        chosen.source, chosen.speaker = "SPEAKER", speaker
        with pytest.raises(ValueError, match='"Speaker" has no sound'):
            sound_info.chosen_info(scene)
        speaker.data.sound = block
        assert sound_info.chosen_info(scene).n_channels == 2

    def test_the_face(self, head):
        words = [sentence for sentence, _ in status.face_words(bpy.context)]
        assert words == ["ARKit keys, 3 of 52 found", "The mouth has no jawForward, jawRight, jawLeft and 21 more"]

    def test_long_sentences_wrap_between_words(self):
        text = "The quick brown fox jumps over the lazy dog"
        lines = widgets.lines_of(text, 10, len)
        assert " ".join(lines) == text and len(lines) > 4
        assert all(len(line) <= 10 for line in lines)
        assert widgets.lines_of("Unbreakable", 3, len) == ["Unbreakable"]
        assert widgets.lines_of("", 3, len) == []

    def test_a_redraw_costs_less_than_a_millisecond(self, chosen, wav):
        build_demo_head()
        bpy.context.view_layer.objects.active = bpy.data.objects["Demo Head"]
        chosen.filepath = str(wav)
        assert reason() == ""
        start_s = time.thread_time()
        for _ in range(50):
            for panel in panels.CLASSES:
                drawn(panel)
        assert (time.thread_time() - start_s) / 50 < 1e-3

    def test_durations(self):
        assert [widgets.duration_words(s) for s in (6.61, 7, 59.94, 125.4)] == ["6.6 s", "7 s", "59.9 s", "2 min 5 s"]


class TestWhileItRuns:
    def test_the_bar_takes_the_buttons_place_and_nothing_else_moves(self, head, chosen, wav, monkeypatch):
        chosen.filepath = str(wav)
        idle = {panel: drawn(panel) for panel in panels.CLASSES}
        assert all(enabled for rows in idle.values() for kind, _, enabled in rows if kind == "operator")
        job = SimpleNamespace(
            title="Listening for Sounds", fraction=0.45, left_s=3.2, is_writing=False, doing="Speech is being animated"
        )
        monkeypatch.setattr(task_module, "_running", job)
        for panel, rows in idle.items():
            busy = drawn(panel)
            if panel is panels.WAV2SEM_PT_animate:
                assert rows.pop(0)[1] == "wav2sem.animate"
                assert busy[:2] == [
                    ("progress", "Listening for Sounds: 45%, 3 s left", True),
                    ("operator", "wav2sem.cancel", True),
                ]
                busy = busy[2:]
            assert [row[:2] for row in busy] == [row[:2] for row in rows]
            assert not any(enabled for *_, enabled in busy)
        monkeypatch.setattr(task_module, "_running", None)

    def test_cancel_needs_a_job(self):
        assert ui_animate.WAV2SEM_OT_cancel.disabled_reason(bpy.context) == "Nothing is running"

    def test_cancel_ends_the_job(self, head, fake_worker, audio):
        job = jobs.Job(bpy.context, ui_animate.AnimateSettings(filepath=audio("slow"), object_name="Head"))
        assert bpy.ops.wav2sem.cancel() == {"FINISHED"}
        assert running_task() is None and job.left_s is None


class TestShaping:
    @pytest.mark.parametrize("fps", [24, 25, 30])
    def test_a_delay_moves_the_motion_by_parts_of_a_frame(self, head, animate, curves_of, fps):
        bpy.context.scene.render.fps = fps
        animate()
        frames_T, pucker_T = curves_of(head)["mouthPucker"]
        for delay_s in (0.1, -0.055, 0.013):
            animate(delay_s=delay_s)
            later_T, moved_T = curves_of(head)["mouthPucker"]
            assert np.array_equal(later_T, np.round(later_T)), "keys lie on whole frames"
            assert abs(later_T[0] - 1 - delay_s * fps) <= 0.5001
            # The pucker rises by 0.9 a second.
            inner = slice(3, -6)  # it rests at the ends
            expected_T = 0.9 * ((later_T[inner] - 1) / fps - delay_s)
            np.testing.assert_allclose(moved_T[inner], expected_T, atol=1e-4)
        assert frames_T[0] == 1

    def test_smoothing_calms_and_is_on_record(self, head, animate, curves_of):
        bpy.context.scene.render.fps = 30
        animate()
        _, sharp_T = curves_of(head)["jawOpen"]
        animate(smoothing_s=0.2)
        _, smooth_T = curves_of(head)["jawOpen"]
        assert sharp_T.max() == pytest.approx(1) and 0.9 < smooth_T.max() < 0.97
        record = json.loads(head.data.shape_keys.animation_data.action["wav2sem_settings"])
        assert record["smoothing_s"] == pytest.approx(0.2)

    def test_a_range_is_cut_before_the_worker_and_its_keys_stay_in_place(self, head, fake_worker, wav, curves_of):
        scene = bpy.context.scene
        scene.render.fps = 24
        options = {"filepath": str(wav), "object": "Head", "start_frame": 11}
        bpy.ops.wav2sem.animate(**options, range_start_s=0.5, range_end_s=1.25)
        action = head.data.shape_keys.animation_data.action
        record = json.loads(action["wav2sem_settings"])
        assert (record["range_start_s"], record["range_end_s"], record["start_frame"]) == (0.5, 1.25, 11)
        assert curves_of(head)["jawOpen"][0][0] == 11 + 12
        settings = ui_animate.AnimateSettings(
            filepath=str(wav), object_name="Head", range_start_s=0.5, range_end_s=1.25
        )
        job = jobs.Job(bpy.context, settings)
        try:
            cut = job._audio.for_worker
            assert cut != wav
            while not job._decoding.poll():
                time.sleep(0.02)
            content = cut.read_bytes()
            n_channels = int.from_bytes(content[22:24], "little")  # they are mixed by the pipeline
            assert (len(content) - 44) // (4 * n_channels) == 0.75 * RATE_HZ
        finally:
            job.cancel()
        with pytest.raises(RuntimeError, match="is 2.00 s long, and the range begins at 3.00 s"):
            bpy.ops.wav2sem.animate(**options, range_start_s=3.0)
        with pytest.raises(RuntimeError, match="Raise To"):
            bpy.ops.wav2sem.animate(**options, range_start_s=1.0, range_end_s=0.5)

    def test_they_come_from_the_panel_too(self, head, chosen, fake_worker, wav, curves_of):
        bpy.context.scene.render.fps = 20
        chosen.filepath, chosen.target, chosen.start_frame = str(wav), head, 101
        chosen.delay_s, chosen.smoothing_s, chosen.range_start_s = 0.25, 0.1, 0.5
        bpy.ops.wav2sem.animate()
        assert curves_of(head)["jawOpen"][0][0] == 101 + 5, "the range is switched off"
        chosen.use_range = True
        bpy.ops.wav2sem.animate()
        assert curves_of(head)["jawOpen"][0][0] == 101 + 5 + 10


class TestPresets:
    def test_ours_can_be_chosen_and_set_what_they_say(self, chosen, monkeypatch):
        found = {
            name.removesuffix(".py"): os.path.join(folder, name)
            for folder in bpy.utils.preset_paths(presets_menu.SUBFOLDER)
            for name in os.listdir(folder)
            if name.endswith(".py")
        }
        assert set(found) >= {"Calm", "As_Spoken", "Expressive"}
        # From then on Blender shows its name in the header.
        monkeypatch.setattr(presets_menu.WAV2SEM_PT_presets, "bl_label", presets_menu.WAV2SEM_PT_presets.bl_label)
        bpy.ops.script.execute_preset(filepath=found["Calm"], menu_idname="WAV2SEM_PT_presets")
        assert (chosen.strength, chosen.smoothing_s) == (pytest.approx(0.75), pytest.approx(0.08))

    def test_every_value_is_a_setting(self, chosen):
        assert all(name in chosen.bl_rna.properties for name in presets_menu.VALUES)


def test_play_needs_a_sound_and_says_when_there_is_no_device(chosen, wav):
    assert WAV2SEM_OT_play_speech.disabled_reason(bpy.context) == "Choose an audio file"
    chosen.filepath = str(wav)
    assert WAV2SEM_OT_play_speech.disabled_reason(bpy.context) == ""
    try:
        bpy.ops.wav2sem.play_speech()
    except RuntimeError as error:
        assert "no sound device" in str(error)
        assert not playback.is_playing()
    else:
        assert playback.is_playing()
        bpy.ops.wav2sem.play_speech()
        assert not playback.is_playing()
