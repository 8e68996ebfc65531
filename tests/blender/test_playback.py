# SPDX-License-Identifier: GPL-3.0-or-later
"""The Play button when its sound changed after the panel was drawn: one sentence, no traceback."""

import bpy
import pytest

from wav2sem_blender.blender.sound import playback
from wav2sem_blender.blender.ui.playback import WAV2SEM_OT_play_speech

import aud  # isort: skip  (found only beside bpy)

RATE_HZ = 8000


class SilentDevice:
    """A fake device: it opens a sound like a real one, but plays nothing."""

    def play(self, sound):
        """Return a handle that has ended; raises aud.error for an unreadable sound."""
        assert sound.specs
        return None


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """One second of sound, chosen in the panel."""
    path = tmp_path / "voice.wav"
    aud.Sound.sine(440).limit(0, 1).write(
        str(path), RATE_HZ, aud.CHANNELS_MONO, aud.FORMAT_S16, aud.CONTAINER_WAV, aud.CODEC_PCM
    )
    monkeypatch.setattr(aud, "Device", SilentDevice)
    bpy.context.scene.wav2sem.filepath = str(path)
    return path


def test_a_file_that_is_deleted_before_the_click(chosen):
    assert bpy.ops.wav2sem.play_speech.poll()
    chosen.unlink()
    assert bpy.ops.wav2sem.play_speech.poll(), "a click on a button that is off says nothing"
    with pytest.raises(
        RuntimeError, match=r'^Error: There is no file "voice\.wav" in .*; choose it where it lies now$'
    ):
        bpy.ops.wav2sem.play_speech()


def test_a_file_that_becomes_another_one_before_the_click(chosen):
    chosen.write_bytes(b"no sound")
    with pytest.raises(RuntimeError, match=r"^Error: voice\.wav: this is no audio file \(it contains text\)"):
        bpy.ops.wav2sem.play_speech()


@pytest.mark.parametrize("source", ["FILE", "SOUND"])
def test_a_file_that_is_deleted_in_the_clicks_last_moment(chosen, source, monkeypatch):
    """The sound disappears after the last check, and aud raises its own error."""
    settings = bpy.context.scene.wav2sem
    settings.sound, settings.source = bpy.data.sounds.load(str(chosen)), source
    seen = playback.info.chosen_info

    def last_look(scene, patience_s):
        info = seen(scene, patience_s)
        chosen.unlink()
        return info

    monkeypatch.setattr(playback.info, "chosen_info", last_look)
    monkeypatch.setattr(WAV2SEM_OT_play_speech, "disabled_reason", classmethod(lambda _cls, _context: ""))
    with pytest.raises(RuntimeError, match=r'^Error: "voice\.wav" cannot be played\. Choose another sound\.$'):
        bpy.ops.wav2sem.play_speech()


def test_a_strip_that_is_removed_before_the_click(chosen):
    settings = bpy.context.scene.wav2sem
    settings.source, settings.strip = "STRIP", "Line"
    with pytest.raises(RuntimeError, match=r'^Error: The sequencer has no sound strip "Line"; choose another one$'):
        bpy.ops.wav2sem.play_speech()


def test_nothing_chosen_is_said_before_the_click():
    with pytest.raises(RuntimeError, match="poll.* Choose an audio file"):
        bpy.ops.wav2sem.play_speech()
