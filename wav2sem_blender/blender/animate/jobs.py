# SPDX-License-Identifier: GPL-3.0-or-later
"""One run from settings to curves. `Job` is the task; `run` waits for its end. The worker stays warm between runs."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy

from ...errors import Text, UserError
from ...pipeline.motion import Motion
from ...pipeline.prosody import Prosody
from ...pipeline.time_slicing import Steps
from ...pipeline.upper_face import Settings as UpperFaceSettings
from ...pipeline.words.track import Direction
from ...pipeline.words.track_files import load_track
from ...worker import protocol
from ...worker.client import WorkerClient, answer_of, new_job_id
from .. import compat
from ..scene import checks, plan, speech_track, upper_face
from ..scene.write_motion import Outcome, applying
from ..sound import source
from ..sound.decode import Decoding
from ..tasks.task import Task, running_task
from . import estimate, recording, update_mouth, update_upper_face
from .mouth_state import Finish
from .settings import AnimateSettings, resolve_model, worker_environment

_POLL_INTERVAL_S = 0.02

# Each stage's part of the progress bar: (begin, end, title).
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


class Job(Task):
    """A run in progress.

    Attributes:
        settings: The settings, with the mesh's name.
    """

    doing = "Speech is being animated"

    def __init__(self, context: bpy.types.Context, settings: AnimateSettings) -> None:
        """Check the target, prepare the audio and send the job to the worker.

        Raises:
            UserError, OSError: The run cannot start; nothing was changed.
        """
        super().__init__("Starting")
        target = checks.find_object(context, settings.object_name, settings.object_uid)
        check_target = upper_face.check_upper_face if settings.upper_face_only else checks.check_target
        check_target(context, target)
        self.settings = replace(settings, object_name=target.name)
        # session_uid survives rename and undo.
        self._target_uid, self._scene_uid = target.session_uid, context.scene.session_uid
        self._scene_name, self._layer_name = context.scene.name, context.view_layer.name
        self._result: Path | None = None
        self._block_uid = 0
        self._loaded_at_s = self._took_s = 0.0
        self._id = new_job_id()
        model = "" if settings.upper_face_only else resolve_model(context, settings.model)
        self._client = _warm_client(context)
        self._decoding: Decoding | None = None
        try:
            folder = self._client.folder / self._id / "audio"
            self._audio, self._block_uid = recording.of_run(context.scene, settings, folder)
            self._decoding = self._audio.decoding()
            self._command: protocol.Command | None = self._make_command(target, model)
            self._submit_when_decoded()
        except BaseException:
            self.cancel()
            raise
        self._begin()

    def _go_on(self) -> bool:
        self._submit_when_decoded()
        for event in self._client.poll():
            if isinstance(event, protocol.Done):
                self.notes, self._result = event.notes, Path(event.result)
                self._took_s = time.monotonic() - self._loaded_at_s
            else:
                self._show(event)
                if (event.stage, event.fraction) == ("model", 1.0):
                    self._loaded_at_s = time.monotonic()
        return self._result is not None

    def _write(self, context: bpy.types.Context) -> Steps[Outcome]:
        target = self._find_target()
        if target is None:
            raise UserError(
                'The mesh "{mesh}" was deleted meanwhile. Undo that, or choose another mesh, and run it again.',
                mesh=self.settings.object_name,
            )
        if self.settings.upper_face_only:
            begins = self.settings.start_frame + self._begins_s * compat.frame_rate_hz(context.scene)
            return self._add_upper_face(context, target, round(compat.time_stretch(context.scene) * begins))
        shown = speech_track.shown_of(target)
        outcome = yield from self._add_speech(context, target)
        outcome = self._keep_track(context, outcome, shown)
        if self.settings.upper_face is None:
            return outcome
        yield
        try:
            upper = self._add_upper_face(context, target, outcome.first_frame, outcome.n_frames)
        except upper_face.NoUpperFaceError as error:
            return replace(outcome, notes=(*outcome.notes, error.text))
        except UserError as error:  # the mouth can speak without it
            warning = Text("The upper face was left alone. {reason}", reason=error.text)
            return replace(outcome, warnings=(*outcome.warnings, warning))
        notes = (*outcome.notes, *upper.notes, upper_face.upper_face_summary(upper))
        return replace(outcome, warnings=(*outcome.warnings, *upper.warnings), notes=notes)

    @contextmanager
    def _place(self, context: bpy.types.Context) -> Iterator[None]:
        """The scene and the view layer in which the run began, whatever the window shows now."""
        scene = next((scene for scene in bpy.data.scenes if scene.session_uid == self._scene_uid), None)
        if scene is None:
            raise UserError(
                'The scene "{scene}" was deleted meanwhile. Undo that, or go to another scene, and run it again.',
                scene=self._scene_name,
            )
        layer = scene.view_layers.get(self._layer_name) or scene.view_layers[0]
        if (scene, layer) == (context.scene, context.view_layer):
            yield
            return
        with context.temp_override(scene=scene, view_layer=layer):
            yield

    @property
    def _begins_s(self) -> float:
        """When the face begins to move, in seconds from the start frame."""
        return self.settings.begins_s + self._audio.later_s

    def _find_target(self) -> bpy.types.Object | None:
        return next((found for found in bpy.data.objects if found.session_uid == self._target_uid), None)

    def _add_speech(self, context: bpy.types.Context, target: bpy.types.Object) -> Steps[Outcome]:
        assert self._result is not None
        motion, visemes = Motion.load(self._result), self._result.with_name(protocol.VISEMES_FILE)
        heard_s = motion.duration_s * self._audio.speed
        estimate.learn(context, self.settings.model, self.settings.device, heard_s, self._took_s)
        return applying(
            context,
            target,
            replace(motion, info={**motion.info, "audio": self._audio.name}),
            start_frame=self.settings.start_frame,
            begins_s=self._begins_s,
            settings=replace(self.settings, object_name=target.name).for_the_record(),
            sound=self._heard_block(),
            visemes=Motion.load(visemes) if visemes.is_file() else None,
        )

    def _keep_track(self, context: bpy.types.Context, outcome: Outcome, shown: Mapping[int, str]) -> Outcome:
        """Keep what was heard on the action. Its strips, if the run has made one with strips again, show it."""
        assert self._result is not None
        action, file = bpy.data.actions[outcome.action_name], self._result.with_name(protocol.TRACK_FILE)
        if not file.is_file():  # the model does not tell which phones it hears
            return outcome
        rate_hz, stretch = compat.frame_rate_hz(context.scene), compat.time_stretch(context.scene)
        begins_s = self.settings.range_start_s + self._audio.later_s
        place = speech_track.Place(
            frame=self.settings.start_frame + begins_s * rate_hz,
            action_frame=stretch * (self.settings.start_frame + self._begins_s * rate_hz),
            action_rate_hz=stretch * rate_hz,
            duration_s=outcome.n_frames / (stretch * rate_hz),
            begins_s=self._audio.start_s,
            speed=self._audio.speed,
        )
        self._keep_state(action)
        identity = shown.get(action.session_uid, "")
        speech_track.remember(action, load_track(file), place, identity)
        if not identity:
            return outcome
        try:
            speech_track.show(context, action)
        except UserError as error:
            return replace(outcome, warnings=(*outcome.warnings, error.text))
        return outcome

    def _keep_state(self, action: bpy.types.Action) -> None:
        """Keep what is needed to make an edited span anew, if the model can do that."""
        assert self._result is not None
        file = self._result.with_name(protocol.STATE_FILE)
        if file.is_file():
            finish = Finish(
                speed=self._audio.speed,
                strength=self.settings.strength,
                smoothing_s=self.settings.smoothing_s,
                tongue=self._tongue,
            )
            update_mouth.remember(action, Motion.load(file), self._model, finish)

    def _add_upper_face(
        self, context: bpy.types.Context, target: bpy.types.Object, first_frame: int, n_frames: int | None = None
    ) -> Outcome:
        assert self._result is not None
        heard = self._prosody()
        outcome = upper_face.apply_upper_face(
            context,
            target,
            heard,
            self.settings.upper_face or UpperFaceSettings(),
            name=self._audio.name,
            start_frame=first_frame,
            sway=self.settings.sway,
            n_frames=n_frames,
            recording=replace(self.settings, object_name=target.name).for_the_record(),
            sound=self._heard_block(),
            directions=self._directions(target),
        )
        update_upper_face.remember(bpy.data.actions[outcome.action_name], heard)
        return outcome

    def _prosody(self) -> Prosody:
        """What was heard for the upper face, as it is played."""
        assert self._result is not None
        return Prosody.load(self._result.with_name(protocol.PROSODY_FILE)).at_speed(self._audio.speed)

    def _directions(self, target: bpy.types.Object) -> tuple[Direction, ...]:
        """The directions of the speech as they are played: of this run, or of the take that the face plays."""
        assert self._result is not None
        file = self._result.with_name(protocol.TRACK_FILE)
        if file.is_file():
            return load_track(file).directions
        if not self.settings.upper_face_only:
            return ()
        return update_upper_face.directions_of(target, self.settings.for_the_record())

    def _make_command(self, target: bpy.types.Object, model: str) -> protocol.Command:
        audio, settings = str(self._audio.for_worker), self.settings
        if settings.upper_face_only:
            return protocol.Listen(job=self._id, audio=audio)
        visemes, available = plan.wanted_visemes(target) or ("", ())
        self._model, self._tongue = model, plan.tongue_channels(target) if settings.tongue else ()
        return protocol.Animate(
            job=self._id,
            audio=audio,
            recording="" if self._audio.mix else str(self._audio.file),
            begins_s=self._audio.start_s if self._audio.is_part else None,
            model=model,
            engine=settings.engine,
            device=settings.device,
            style=settings.style or 0,
            articulation=settings.articulation,
            semantic_strength=settings.semantic_strength,
            speed=self._audio.speed,
            strength=settings.strength,
            smoothing_s=settings.smoothing_s,
            visemes=visemes,
            available=list(available),
            tongue=list(self._tongue),
            listen=settings.upper_face is not None,
            transcript=settings.transcript,
            transcript_file=str(source.absolute(settings.transcript_file)) if settings.transcript_file else "",
            language=settings.language,
            track_file=str(source.absolute(settings.track_file)) if settings.track_file else "",
        )

    def _heard_block(self) -> bpy.types.Sound | None:
        """The sound data-block that was heard, if it was one: by name it could not be found again after a rename."""
        return next((block for block in bpy.data.sounds if block.session_uid == self._block_uid), None)

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

    def _release(self) -> None:
        if self._decoding is not None:
            self._decoding.cancel()
        self._client.cancel()
        self._client.remove_job(self._id)

    def _edited(self, _error: ReferenceError) -> UserError:
        name = self.settings.object_name
        return UserError('"{mesh}" was changed while its curves were written. Run it again.', mesh=name)


def run(
    context: bpy.types.Context, settings: AnimateSettings, on_progress: Callable[[float, str], None] | None = None
) -> tuple[Outcome, Sequence[str]]:
    """Run to the end; returns the outcome and the worker's notes.

    Raises:
        UserError, OSError: The run failed; nothing was changed.
    """
    job = Job(context, settings)
    return followed(context, job, on_progress), job.notes


def followed(context: bpy.types.Context, task: Task, on_progress: Callable[[float, str], None] | None = None) -> Any:
    """Run a task to its end, without the interface; returns its outcome, and raises as its `poll` and `write`."""
    try:
        while not task.poll():
            if on_progress:
                on_progress(task.fraction, task.title)
            time.sleep(_POLL_INTERVAL_S)
    except KeyboardInterrupt:
        task.cancel()
        raise
    return task.finish(context)


def call(context: bpy.types.Context, module: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a module's `run(arguments, models)` returns in the warm worker; waits for it.

    Among the arguments are `audio` and `model`, which limit the job.

    Raises:
        UserError: The worker cannot be started, died, or found an error that is its own.
    """
    client, job = _warm_client(context), new_job_id()
    given = {"audio": arguments["audio"], "model": arguments["model"]}
    client.submit(protocol.Call(job=job, module=module, arguments=json.dumps(dict(arguments)), **given))
    try:
        answer = answer_of(client.wait())
    except KeyboardInterrupt:
        client.cancel()
        raise
    client.remove_job(job)
    return answer


def shut_down() -> None:
    """End the running task and the worker."""
    global _client
    task = running_task()
    if task is not None:
        task.cancel()
    if _client is not None:
        _client.close()
        _client = None


def _warm_client(context: bpy.types.Context) -> WorkerClient:
    """The worker of the last run, or a new one if the preferences name another Python."""
    global _client
    environment = worker_environment(context)
    if _client is not None and (_client.environment != environment or not _client.folder.is_dir()):
        _client.close()
        _client = None
    if _client is None:
        _client = WorkerClient(environment, _session_folder())
    return _client


def _session_folder() -> Path:
    """A new folder in Blender's temporary folder, which Blender removes when it quits."""
    parent = bpy.app.tempdir or None
    if parent and not Path(parent).is_dir():
        parent = None
    return Path(tempfile.mkdtemp(prefix="wav2sem_", dir=parent))
