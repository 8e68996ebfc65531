# SPDX-License-Identifier: GPL-3.0-or-later
"""One run from settings to curves, in steps that a timer can take; the worker stays warm between runs.

`Job` blocks nowhere for long; `run` waits for its end.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import bpy

from ...errors import Text, UserError
from ...pipeline.motion import Motion
from ...pipeline.prosody import Prosody
from ...pipeline.retarget import prepared
from ...pipeline.time_slicing import Steps, at_once, for_a_while
from ...pipeline.upper_face import Settings as UpperFaceSettings
from ...worker import protocol
from ...worker.client import WorkerClient, new_job_id
from .. import compat
from ..scene import checks, plan, upper_face
from ..scene.write_motion import Outcome, applying
from ..sound import source
from ..sound.decode import Decoding
from ..sound.source import Audio
from ..tasks.running import SLICE_S, Running, current
from .settings import AnimateSettings, resolve_model, worker_environment

_POLL_INTERVAL_S = 0.02

# Each stage's part of the whole, so that the bar moves evenly: (begin, end, title).
_STAGES = {
    "model": (0.0, 0.15, "Loading the Model"),
    "audio": (0.15, 0.25, "Reading the Audio"),
    "prosody": (0.25, 0.3, "Listening for Stress"),
    "semantics": (0.3, 0.45, "Listening for Meaning"),
    "features": (0.45, 0.75, "Listening for Sounds"),
    "motion": (0.75, 0.95, "Moving the Face"),
    "visemes": (0.95, 1.0, "Shaping Visemes"),
}

_client: WorkerClient | None = None


class Job(Running):
    """A run in progress.

    Attributes:
        settings: What was asked for.
    """

    doing = "Speech is being animated"

    def __init__(self, context: bpy.types.Context, settings: AnimateSettings) -> None:
        """Check the target, prepare the audio and hand the job to the worker.

        Raises:
            ValueError, OSError: For the user; nothing was changed.
        """
        super().__init__("Starting")
        target = checks.find_object(context, settings.object_name)
        check_target = upper_face.check_upper_face if settings.upper_face_only else checks.check_target
        check_target(context, target)
        self.settings = replace(settings, object_name=target.name)
        # By what renaming and undo leave as they are.
        self._target_uid, self._scene_uid = target.session_uid, context.scene.session_uid
        self._scene_name, self._layer_name = context.scene.name, context.view_layer.name
        self._result: Path | None = None
        self._visemes: Path | None = None
        self._is_ready = False
        self._id = new_job_id()
        model = "" if settings.upper_face_only else resolve_model(context, settings.model)
        self._client = _warm_client(context)
        self._decoding: Decoding | None = None
        try:
            self._audio = self._find_part(context.scene)
            self._decoding = self._audio.decoding()
            self._command: protocol.Animate | protocol.Listen | None = self._make_command(model)
            self._submit_when_decoded()
        except BaseException:
            self._clean_up()
            raise
        self._begin()

    def poll(self) -> bool:
        """See what became of the sound and of the worker's job; True when the motion is there.

        Raises:
            ValueError, OSError: The run failed; nothing was changed.
        """
        try:
            self._submit_when_decoded()
            for event in self._client.poll():
                if isinstance(event, protocol.Done):
                    self._take(event)
                else:
                    self._show(event)
        except BaseException:
            self._clean_up()
            raise
        return self._is_ready

    def write(self, context: bpy.types.Context) -> Outcome | None:
        """Write curves for a moment; None while there are more. The caller lets nobody touch the scene meanwhile.

        Raises:
            ValueError, OSError: The target changed meanwhile, or does not fit the model; nothing was changed.
        """
        return self._write_on(context, lambda steps: for_a_while(steps, SLICE_S))

    def finish(self, context: bpy.types.Context) -> Outcome:
        """Write the curves without a pause; raises as `write`."""
        outcome = self._write_on(context, at_once)
        assert outcome is not None
        return outcome

    def cancel(self) -> None:
        """Give up; the worker ends and nothing was changed."""
        self._client.cancel()
        self._clean_up()

    def _take(self, done: protocol.Done) -> None:
        """Go on with what the worker made: a face of visemes needs another thing from it."""
        if self._result is not None:
            self._visemes = Path(done.result)
        else:
            self.notes, self._result = [*done.notes], Path(done.result)
            conversion = self._conversion()
            if conversion is not None:
                self._client.submit(conversion)
                return
        self._is_ready = True

    def _conversion(self) -> protocol.Convert | None:
        target = self._find_target()
        if self.settings.upper_face_only or target is None or target.type != "MESH":
            return None
        motion = self._motion()
        wanted = plan.wanted_visemes(target, motion.channels)
        if wanted is None:
            return None
        assert self._result is not None
        path = self._result.with_name("prepared.npz")
        prepared(motion, strength=self.settings.strength, smoothing_s=self.settings.smoothing_s).save(path)
        name, available = wanted
        return protocol.Convert(job=self._id, motion=str(path), visemes=name, available=list(available))

    def _write_on(self, context: bpy.types.Context, go: Callable[[Steps[Outcome]], Outcome | None]) -> Outcome | None:
        try:
            with self._in_its_scene(context):
                if self._writing is None:
                    self._writing = self._write(context)
                outcome = go(self._writing)
        except BaseException as error:
            self._clean_up()
            if isinstance(error, ReferenceError):  # by a script's hand: a person's events are kept away
                name = self.settings.object_name
                raise UserError(
                    '"{name}" was changed while its curves were written. Run it again.', name=name
                ) from error
            raise
        if outcome is not None:
            self._clean_up()
        return outcome

    def _write(self, context: bpy.types.Context) -> Steps[Outcome]:
        target = self._find_target()
        if target is None:
            raise UserError(
                'The mesh "{object_name}" was deleted meanwhile. Undo that, or choose another mesh, and run it again.',
                object_name=self.settings.object_name,
            )
        if self.settings.upper_face_only:
            begins = round(self.settings.begins_s * compat.frame_rate_hz(context.scene))
            return self._add_upper_face(context, target, self.settings.start_frame + begins)
        outcome = yield from self._add_speech(context, target)
        if self.settings.upper_face is None:
            return outcome
        yield
        try:
            upper = self._add_upper_face(context, target, outcome.first_scene_frame, outcome.n_scene_frames)
        except upper_face.NoUpperFaceError as error:
            return replace(outcome, notes=(*outcome.notes, error.text))
        except ValueError as error:  # the mouth speaks none the worse for it
            return replace(
                outcome,
                warnings=(
                    *outcome.warnings,
                    Text(
                        "The upper face is left alone. {error}",
                        error=error,
                    ),
                ),
            )
        notes = (*outcome.notes, *upper.notes, upper_face.upper_face_summary(upper))
        return replace(outcome, warnings=(*outcome.warnings, *upper.warnings), notes=notes)

    @contextmanager
    def _in_its_scene(self, context: bpy.types.Context) -> Iterator[None]:
        """The scene and the layer in which the run began, whatever is looked at now."""
        scene = next((scene for scene in bpy.data.scenes if scene.session_uid == self._scene_uid), None)
        if scene is None:
            raise UserError(
                'The scene "{scene_name}" was deleted meanwhile. Undo that, or go to another scene, and run it again.',
                scene_name=self._scene_name,
            )
        layer = scene.view_layers.get(self._layer_name) or scene.view_layers[0]
        if (scene, layer) == (context.scene, context.view_layer):
            yield
            return
        with context.temp_override(scene=scene, view_layer=layer):
            yield

    def _find_target(self) -> bpy.types.Object | None:
        return next((found for found in bpy.data.objects if found.session_uid == self._target_uid), None)

    def _motion(self) -> Motion:
        assert self._result is not None
        motion = Motion.load(self._result)
        info = {**motion.info, "audio": self._audio.name}
        return replace(motion, fps=motion.fps * self._audio.speed, info=info)

    def _add_speech(self, context: bpy.types.Context, target: bpy.types.Object) -> Steps[Outcome]:
        return applying(
            context,
            target,
            self._motion(),
            start_frame=self.settings.start_frame,
            begins_s=self.settings.begins_s,
            strength=self.settings.strength,
            smoothing_s=self.settings.smoothing_s,
            settings=replace(self.settings, object_name=target.name).for_the_record(),
            visemes=Motion.load(self._visemes) if self._visemes is not None else None,
        )

    def _add_upper_face(
        self, context: bpy.types.Context, target: bpy.types.Object, first_frame: int, n_frames: int | None = None
    ) -> Outcome:
        assert self._result is not None
        heard = Prosody.load(self._result.with_name(protocol.PROSODY_FILE)).at_speed(self._audio.speed)
        return upper_face.apply_upper_face(
            context,
            target,
            heard,
            self.settings.upper_face or UpperFaceSettings(),
            name=self._audio.name,
            start_frame=first_frame,
            sway=self.settings.sway,
            n_frames=n_frames,
            recording=replace(self.settings, object_name=target.name).for_the_record(),
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

    def _find_part(self, scene: bpy.types.Scene) -> Audio:
        start_s, end_s = self.settings.range_start_s, self.settings.range_end_s
        return source.part_of(self._find_audio(scene), start_s, end_s, self._client.folder / self._id / "audio")

    def _find_audio(self, scene: bpy.types.Scene) -> Audio:
        settings, folder = self.settings, self._client.folder / self._id / "audio"
        if settings.strip:
            strip = compat.find_strip(scene, settings.strip)
            if strip is None:
                raise UserError(
                    'There is no sound strip named "{strip}" in this scene. Choose another one.',
                    strip=settings.strip,
                )
            return source.audio_of_strip(strip, compat.frame_rate_hz(scene), folder)
        if settings.sound:
            block = bpy.data.sounds.get(settings.sound)
            if block is None:
                raise UserError(
                    'There is no sound named "{sound}" in this file. Choose another one.',
                    sound=settings.sound,
                )
            return source.audio_of_sound(block, folder)
        if not settings.filepath:
            raise UserError("No audio is chosen. Choose an audio file first.")
        return source.audio_file(settings.filepath, folder)

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
        if self.settings.upper_face_only and event.stage == "prosody":
            end = 1.0
        self.fraction = max(self.fraction, begin + (end - begin) * event.fraction)
        self.title = title

    def _clean_up(self) -> None:
        if self._writing is not None:
            with suppress(ReferenceError):  # another file is open by now
                self._writing.close()
        if self._decoding is not None:
            self._decoding.end()
        self._client.remove_job(self._id)
        self._end()


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


def shut_down() -> None:
    """End the worker and what it was doing."""
    global _client
    running = current()
    if running is not None:
        running.cancel()
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
