# SPDX-License-Identifier: GPL-3.0-or-later
"""One run from settings to curves, in steps that a timer can take; the worker stays warm between runs.

`Job` blocks nowhere for long; `run` waits for its end.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bpy

from ..pipeline.motion import Motion
from ..pipeline.prosody import Prosody
from ..pipeline.upper_face import Settings as UpperFaceSettings
from ..worker import protocol
from ..worker.client import WorkerClient, new_job_id
from . import compat, preflight, sound, upper_face
from .apply import Outcome, apply_motion
from .decode import Decoding
from .settings import AnimateSettings, resolve_model, worker_environment
from .sound import Audio

_POLL_INTERVAL_S = 0.02

# Each stage's part of the whole, so that the bar moves evenly: (begin, end, title).
_STAGES = {
    "model": (0.0, 0.15, "Loading the Model"),
    "audio": (0.15, 0.25, "Reading the Audio"),
    "semantics": (0.25, 0.45, "Listening for Meaning"),
    "features": (0.45, 0.75, "Listening for Sounds"),
    "motion": (0.75, 1.0, "Moving the Face"),
    "prosody": (0.25, 1.0, "Listening for Stress"),
}

_client: WorkerClient | None = None
_current: Job | None = None


class Job:
    """A run in progress.

    Attributes:
        settings: What was asked for.
        fraction: Progress, 0..1.
        title: What is being done, for the progress bar.
        notes: The worker's sentences for the user.
    """

    def __init__(self, context: bpy.types.Context, settings: AnimateSettings) -> None:
        """Check the target, prepare the audio and hand the job to the worker.

        Raises:
            ValueError, OSError: For the user; nothing was changed.
        """
        global _current
        if _current is not None:
            raise ValueError("Speech is being animated already. Wait for it, or cancel it with Esc.")
        target = preflight.find_object(context, settings.object_name)
        check_target = upper_face.check_target if settings.upper_face_only else preflight.check_target
        check_target(context, target)
        self.settings = replace(settings, object_name=target.name)
        self.fraction, self.title = 0.0, "Starting"
        self.notes: list[str] = []
        self._scene_name = context.scene.name
        self._result: Path | None = None
        self._id = new_job_id()
        model = "" if settings.upper_face_only else resolve_model(context, settings.model)
        self._client = _warm_client(context)
        self._decoding: Decoding | None = None
        try:
            self._audio = self._find_audio(context.scene)
            self._decoding = self._audio.decoding()
            self._command: protocol.Animate | protocol.Listen | None = self._make_command(model)
            self._submit_when_decoded()
        except BaseException:
            self._clean_up()
            raise
        _current = self

    def poll(self) -> bool:
        """See what became of the sound and of the worker's job; True when the motion is there.

        Raises:
            ValueError, OSError: The run failed; nothing was changed.
        """
        try:
            self._submit_when_decoded()
            for event in self._client.poll():
                if isinstance(event, protocol.Done):
                    self.notes = event.notes
                    self._result = Path(event.result)
                else:
                    self._show(event)
        except BaseException:
            self._clean_up()
            raise
        return self._result is not None

    def finish(self, context: bpy.types.Context) -> Outcome:
        """Write the curves.

        Raises:
            ValueError, OSError: The target changed meanwhile, or does not fit the model; nothing was changed.
        """
        assert self._result is not None
        try:
            if context.scene.name != self._scene_name:
                raise ValueError(f'The scene "{self._scene_name}" is no longer the active one. Run it again.')
            target = preflight.find_object(context, self.settings.object_name)
            if self.settings.upper_face_only:
                return self._add_upper_face(context, target)
            outcome = self._add_speech(context, target)
            if self.settings.upper_face is None:
                return outcome
            try:
                upper = self._add_upper_face(context, target, outcome.n_scene_frames)
            except ValueError as error:  # the mouth speaks none the worse for it
                return replace(outcome, warnings=(*outcome.warnings, f"The upper face is left alone. {error}"))
            notes = (*outcome.notes, *upper.notes, upper_face.summary(upper))
            return replace(outcome, warnings=(*outcome.warnings, *upper.warnings), notes=notes)
        finally:
            self._clean_up()

    def cancel(self) -> None:
        """Give up; the worker ends and nothing was changed."""
        self._client.cancel()
        self._clean_up()

    def _add_speech(self, context: bpy.types.Context, target: bpy.types.Object) -> Outcome:
        assert self._result is not None
        motion = Motion.load(self._result)
        info = {**motion.info, "audio": self._audio.name}
        motion = replace(motion, fps=motion.fps * self._audio.speed, info=info)
        return apply_motion(
            context,
            target,
            motion,
            start_frame=self.settings.start_frame,
            strength=self.settings.strength,
            settings=self.settings.for_the_record(),
        )

    def _add_upper_face(
        self, context: bpy.types.Context, target: bpy.types.Object, n_frames: int | None = None
    ) -> Outcome:
        assert self._result is not None
        heard = Prosody.load(self._result.with_name(protocol.PROSODY_FILE)).at_speed(self._audio.speed)
        return upper_face.apply_upper_face(
            context,
            target,
            heard,
            self.settings.upper_face or UpperFaceSettings(),
            name=self._audio.name,
            start_frame=self.settings.start_frame,
            sway=self.settings.sway,
            n_frames=n_frames,
        )

    def _make_command(self, model: str) -> protocol.Animate | protocol.Listen:
        audio, settings = str(self._audio.for_worker), self.settings
        if settings.upper_face_only:
            return protocol.Listen(job=self._id, audio=audio)
        return protocol.Animate(
            job=self._id,
            audio=audio,
            model=model,
            engine=settings.engine,
            device=settings.device,
            style=settings.style or 0,
            semantic_strength=settings.semantic_strength,
            listen=settings.upper_face is not None,
        )

    def _find_audio(self, scene: bpy.types.Scene) -> Audio:
        settings, folder = self.settings, self._client.folder / self._id / "audio"
        if settings.strip:
            strip = compat.find_strip(scene, settings.strip)
            if strip is None:
                raise ValueError(f'There is no sound strip named "{settings.strip}" in the sequencer of this scene.')
            return sound.audio_of_strip(strip, compat.frame_rate_hz(scene), folder)
        if settings.sound:
            block = bpy.data.sounds.get(settings.sound)
            if block is None:
                raise ValueError(f'There is no sound named "{settings.sound}" in this file.')
            return sound.audio_of_sound(block, folder)
        if not settings.filepath:
            raise ValueError("No audio is chosen. Choose an audio file first.")
        return sound.audio_file(settings.filepath, folder)

    def _submit_when_decoded(self) -> None:
        if self._command is None:
            return
        if self._decoding is not None and not self._decoding.poll():
            self.title = _STAGES["audio"][2]
            return
        self._client.submit(self._command)
        self._command = None

    def _show(self, event: protocol.Progress) -> None:
        begin, end, title = _STAGES.get(event.stage, (self.fraction, self.fraction, event.stage.title()))
        self.fraction = max(self.fraction, begin + (end - begin) * event.fraction)
        self.title = title

    def _clean_up(self) -> None:
        global _current
        if self._decoding is not None:
            self._decoding.end()
        self._client.remove_job(self._id)
        if _current is self:
            _current = None


def run(
    context: bpy.types.Context, settings: AnimateSettings, on_progress: Callable[[float, str], None] | None = None
) -> tuple[Outcome, list[str]]:
    """A whole run, waiting for its end: the curves' outcome and the worker's notes.

    Raises:
        ValueError, OSError: For the user; nothing was changed.
    """
    job = Job(context, settings)
    try:
        while not job.poll():
            if on_progress:
                on_progress(job.fraction, job.title)
            time.sleep(_POLL_INTERVAL_S)
    except KeyboardInterrupt:
        job.cancel()
        raise
    return job.finish(context), job.notes


def current() -> Job | None:
    """The run in progress, for the panel."""
    return _current


def shut_down() -> None:
    """End the worker and what it was doing."""
    global _client
    if _current is not None:
        _current.cancel()
    if _client is not None:
        _client.close()
        _client = None


def _warm_client(context: bpy.types.Context) -> WorkerClient:
    """The worker of the last run while the preferences name the same Python, otherwise a new one."""
    global _client
    environment = worker_environment(context)
    if _client is not None and (_client.environment != environment or not _client.folder.is_dir()):
        _client.close()
        _client = None
    if _client is None:
        _client = WorkerClient(environment, _session_folder())
    return _client


def _session_folder() -> Path:
    """A new folder in Blender's temporary folder; that one disappears with Blender."""
    parent = bpy.app.tempdir or None
    if parent and not Path(parent).is_dir():
        parent = None
    return Path(tempfile.mkdtemp(prefix="wav2sem_", dir=parent))
