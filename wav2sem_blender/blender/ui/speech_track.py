# SPDX-License-Identifier: GPL-3.0-or-later
"""The Words panel, in the Speech tab of the 3D viewport and of the Sequencer: the words and phones of a take."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import bpy
from bpy.props import BoolProperty, StringProperty
from bpy_extras.io_utils import ExportHelper, ImportHelper

from ...errors import Text, UserError
from ...pipeline.words.directions import AMOUNTS, SWITCHES
from ...pipeline.words.pronunciation import known_language, pronounce
from ...pipeline.words.track_files import load_track, save_track
from .. import addon_preferences, compat
from ..animate import update_mouth, update_upper_face
from ..animate.hear_again import HearAgain
from ..animate.settings import steering_problem
from ..scene import custom_properties, directions, speech_track, takes
from ..scene.actions import SETTINGS
from ..scene.takes import Take
from ..scene.track_edits import SPOKEN
from ..tasks.task import running_task, why_wait
from ..translations import CONTEXT, translated
from . import track_watch
from .animate import FRESH
from .result_operators import rebake_settings, selected
from .task_operator import TaskOperator, draw_progress
from .widgets import AddonOperator, AnimateSubPanel, SpeechPanel, columns, draw_text, face_of

_GLOB = "*.TextGrid;*.csv;*.json"
# How many problems are told at once.
_TOLD = 2
# Of the viewport's height, for the Sequencer below it.
_SEQUENCER_SHARE = 0.45
# So many seconds of words can be read at once in the Sequencer; and how long a new one needs until it is drawn.
_READABLE_S, _NEW_AREA_S = 1.2, 0.3
# Length of new directions at the playhead; tiers of strips that can be directed.
_NEW_DIRECTIONS_S, _DIRECTED = 0.5, ("words", "directions")
# Of words whose language nobody has said.
_LANGUAGE = "en"


def chosen(context: bpy.types.Context) -> tuple[bpy.types.Object, Take] | None:
    """The take whose words are worked on, and its face: the active strip's, else the one chosen under Result."""
    editor = compat.sequencer_scene(context).sequence_editor if context.scene is not None else None
    strip = editor.active_strip if editor is not None else None
    action, face = speech_track.action_of(strip) if strip is not None else None, face_of(context)
    if action is not None and (played := takes.playing(action, face)) is not None:
        return played
    take = selected(context)
    if face is None or take is None:
        return None
    if take.is_upper_face:
        take = next((other for other in takes.of_face(face) if not other.is_upper_face), None)
    return (face, take) if take is not None else None


class _TrackOperator(AddonOperator):
    """Base of the buttons, which work on the chosen take's words."""

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """A take whose model told which phones it heard."""
        if wait := why_wait():
            return wait
        found = chosen(context)
        if found is None:
            return "Animate a face first; its words and phones are shown here then"
        if not speech_track.has_track(found[1].action):
            return "Animate this face again: the take has no words and phones on record"
        if found[1].action.library is not None:
            return Text('The action "{action}" is linked from another file', action=found[1].action.name)
        return cls.missing(context, found[1])

    @classmethod
    def missing(cls, _context: bpy.types.Context, _take: Take) -> str:
        """What else the button needs; empty when nothing is missing."""
        return ""


class WAV2SEM_OT_show_words(_TrackOperator, bpy.types.Operator):
    """Show the words and phones of this take as strips in the Sequencer, over its sound"""

    bl_idname = "wav2sem.show_words"
    bl_label = "Show Words"

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Write the strips."""
        found = chosen(context)
        assert found is not None
        try:
            n_strips = speech_track.show(context, found[1].action)
        except UserError as error:
            return self._failed(error)
        self.tell({"INFO"}, Text("{n} words and phones are in the Sequencer", n=n_strips))
        return {"FINISHED"}


class WAV2SEM_OT_hide_words(_TrackOperator, bpy.types.Operator):
    """Remove the strips of this take from the Sequencer. Its words and phones stay with it, and the mouth as it is"""

    bl_idname = "wav2sem.hide_words"
    bl_label = "Hide Words"

    @classmethod
    def missing(cls, context: bpy.types.Context, take: Take) -> str:
        """Edits that the mouth does not follow yet would be lost."""
        status = track_watch.status(take.action)
        if status is None or not status.is_edited:
            return ""
        if not _cannot_follow(context, take):
            return "Update the mouth first: the strips have changed"
        return status.problems[0] if status.problems else ""

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Remove them."""
        found = chosen(context)
        assert found is not None
        action = found[1].action
        try:
            reading = speech_track.read(action, phones_of_text)
            if reading is not None and reading.is_edited:  # the model cannot follow, but the edits are not lost
                speech_track.keep(action, reading, reading.settled.track(speech_track.recorded(action).language))
        except UserError as error:
            return self._failed(error)
        speech_track.remove(action)
        track_watch.forget()
        return {"FINISHED"}


class WAV2SEM_OT_update_mouth(TaskOperator, _TrackOperator, bpy.types.Operator):
    """Let the mouth follow the strips: only what was edited is made anew. Keys outside it stay as they are"""

    bl_idname = "wav2sem.update_mouth"
    bl_label = "Update Mouth"

    replaces: BoolProperty(  # type: ignore[valid-type]
        name="Replace Own Keys",
        description="Replace keys that you have edited there, instead of moving them along with the change",
        **FRESH,
    )

    @classmethod
    def missing(cls, context: bpy.types.Context, take: Take) -> str:
        """Strips that can be followed, and a model that can."""
        status = track_watch.status(take.action)
        if status is None:
            return "Show the words first, and edit their strips"
        if reason := _cannot_follow(context, take):
            return reason
        return status.problems[0] if status.problems else ""

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> compat.Result:
        """At once if the sound is still known, else while the user works."""
        found = chosen(context)
        assert found is not None
        if update_mouth.is_ready(*found):
            return self.execute(context)
        return super().invoke(context, event)

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Run to the end."""
        found = chosen(context)
        assert found is not None
        face, take = found
        if not update_mouth.is_ready(face, take):
            return super().execute(context)
        try:
            update = update_mouth.follow(face, take, pronounce=phones_of_text, replaces=self.replaces)
        except UserError as error:
            return self._failed(error)
        return self._finished(update, ())

    def _make(self, context: bpy.types.Context) -> HearAgain:
        found = chosen(context)
        assert found is not None
        face, take = found
        settings = rebake_settings(take, face, addon_preferences.get(context).device)
        return HearAgain(context, settings, take.action, pronounce=phones_of_text, replaces=self.replaces)

    def _finished(self, outcome: update_mouth.Update, _notes: Sequence[str]) -> compat.Result:
        track_watch.forget()
        for words in outcome.words():
            self.tell({"INFO"}, words)
        return {"FINISHED"}


class WAV2SEM_OT_export_words(_TrackOperator, ExportHelper, bpy.types.Operator):
    """Save the words and phones of this take for Praat (TextGrid), as a table (csv), or with everything (json)"""

    bl_idname = "wav2sem.export_words"
    bl_label = "Export"
    bl_options: ClassVar = {"REGISTER"}

    filename_ext = ".TextGrid"
    check_extension = None
    filter_glob: StringProperty(default=_GLOB, options={"HIDDEN"})  # type: ignore[valid-type]

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> compat.Result:  # type: ignore[override]
        """Suggest the action's name."""
        found = chosen(context)
        if not self.filepath and found is not None:
            folder = Path(bpy.data.filepath).parent if bpy.data.filepath else Path.home()
            self.filepath = str(folder / f"{bpy.path.clean_name(found[1].action.name)}{self.filename_ext}")
        return super().invoke(context, event)  # type: ignore[return-value]

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Write what the strips say, in times of the sound's file."""
        found = chosen(context)
        assert found is not None
        path = Path(bpy.path.abspath(self.filepath)).absolute()
        try:
            save_track(speech_track.current(found[1].action), path if path.suffix else path.with_suffix(".TextGrid"))
        except (OSError, UserError) as error:
            return self._failed(error)
        self.tell({"INFO"}, Text("Saved {path}", path=path))
        return {"FINISHED"}


class WAV2SEM_OT_import_words(_TrackOperator, ImportHelper, bpy.types.Operator):
    """Load words and phones from a TextGrid, csv or json file of this take's sound, in place of those that are shown"""

    bl_idname = "wav2sem.import_words"
    bl_label = "Import"

    filter_glob: StringProperty(default=_GLOB, options={"HIDDEN"})  # type: ignore[valid-type]

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Show what the file says; the mouth follows at the next update."""
        found = chosen(context)
        assert found is not None
        path = Path(bpy.path.abspath(self.filepath)).absolute()
        try:
            notes = speech_track.replace_shown(context, found[1].action, load_track(path), path.name)
        except (OSError, UserError) as error:
            return self._failed(error)
        for note in notes:
            self.tell({"WARNING"}, note)
        return {"FINISHED"}


class WAV2SEM_OT_add_directions(_TrackOperator, bpy.types.Operator):
    """Add a strip that directs the face while the selected words are spoken, or from the playhead on. Drag its ends"""

    bl_idname = "wav2sem.add_directions"
    bl_label = "Add Directions"

    @classmethod
    def missing(cls, _context: bpy.types.Context, take: Take) -> str:
        """Strips above which there is a place for it."""
        return "" if speech_track.strips_of(take.action)[1] else "Show the words first"

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Add it and make it the active strip."""
        found = chosen(context)
        assert found is not None
        action = found[1].action
        try:
            strip = speech_track.add_directions(action, self._frames(context, action))
        except UserError as error:
            return self._failed(error)
        scene = strip.id_data
        for other in compat.all_strips(scene):
            other.select = False
        strip.select, scene.sequence_editor.active_strip = True, strip
        return {"FINISHED"}

    def _frames(self, context: bpy.types.Context, action: bpy.types.Action) -> tuple[int, int]:
        """From the first frame of the selected words and sounds to the end of the last, or half a second from here."""
        scene, strips = speech_track.strips_of(action)
        assert scene is not None
        spans = [compat.strip_span(strip) for strip in strips if strip.select and _tier(strip) in SPOKEN]
        if spans:
            return min(first for first, _ in spans), max(last for _, last in spans)
        here = scene.frame_current
        return here, here + max(1, round(_NEW_DIRECTIONS_S * compat.frame_rate_hz(scene)))


class WAV2SEM_OT_copy_directions(AddonOperator, bpy.types.Operator):
    """Give the other selected words and strips the directions of the active one"""

    bl_idname = "wav2sem.copy_directions"
    bl_label = "Copy to Selected"

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """An active strip and other selected ones."""
        active = _active_directed(context)
        if active is None:
            return "Select words in the Sequencer"
        return "" if _selected_others(context, active) else "Select other words, too"

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Copy them."""
        active = _active_directed(context)
        wanted = directions.read(active, directions.keys_of(active.id_data))
        for strip in _selected_others(context, active):
            directions.write(strip.id_data, strip, wanted)
        return {"FINISHED"}


class WAV2SEM_OT_open_sequencer(AddonOperator, bpy.types.Operator):
    """Split this view and show the Sequencer below it, with the words"""

    bl_idname = "wav2sem.open_sequencer"
    bl_label = "Open the Sequencer"
    bl_options: ClassVar = {"REGISTER"}

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """A view to split."""
        return "" if context.area is not None and context.area.type == "VIEW_3D" else "Use this in the 3D viewport"

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Open it, and let it show the words' scene from its beginning to its end."""
        found, area, screen = chosen(context), context.area, context.screen
        assert area is not None and screen is not None
        scene = speech_track.strips_of(found[1].action)[0] if found is not None else None
        known = {other.as_pointer() for other in screen.areas}
        bpy.ops.screen.area_split(direction="HORIZONTAL", factor=_SEQUENCER_SHARE)
        made = next(other for other in screen.areas if other.as_pointer() not in known)
        lower = min(made, area, key=lambda other: other.y)
        lower.ui_type = "SEQUENCE_EDITOR"
        space: Any = lower.spaces.active
        space.show_region_ui = True  # its tab Speech has this panel, too
        # Then a strip shows its word once.
        space.timeline_overlay.show_strip_source = space.timeline_overlay.show_strip_duration = False
        compat.show_sequencer_scene(context, scene or context.scene)
        region = next(region for region in lower.regions if region.type == "WINDOW")
        first_words = [strip for strip in _strips_of(found) if compat.strip_span(strip)[1] <= _until(found)]
        with context.temp_override(area=lower, region=region):
            if first_words:
                _view(scene or context.scene, first_words)
            else:
                bpy.ops.sequencer.view_all()
        bpy.app.timers.register(_show_tab, first_interval=_NEW_AREA_S)
        return {"FINISHED"}


def _strips_of(found: tuple[bpy.types.Object, Take] | None) -> list[Any]:
    """The words and phones of a take in the Sequencer."""
    strips = speech_track.strips_of(found[1].action)[1] if found is not None else []
    return [strip for strip in strips if speech_track.item_of(strip) is not None]


def _until(found: tuple[bpy.types.Object, Take] | None) -> float:
    """The frame up to which words can be read at once in a view of usual width."""
    scene = speech_track.strips_of(found[1].action)[0] if found is not None else None
    begins = min((compat.strip_span(strip)[0] for strip in _strips_of(found)), default=0)
    return begins + _READABLE_S * compat.frame_rate_hz(scene) if scene is not None else begins


def _view(scene: bpy.types.Scene, strips: list[Any]) -> None:
    """Let the Sequencer show these strips as large as they fit; what is selected stays so."""
    wanted = {strip.as_pointer() for strip in strips}
    before = [(strip, strip.select) for strip in compat.all_strips(scene)]
    for strip, _ in before:
        strip.select = strip.as_pointer() in wanted
    bpy.ops.sequencer.view_selected()
    for strip, was_selected in before:
        strip.select = was_selected


def _show_tab() -> None:
    """Choose our tab in the Sequencer's sidebar, which exists only after it was drawn."""
    manager = bpy.context.window_manager
    for window in manager.windows if manager is not None else ():
        for area in window.screen.areas:
            regions: Any = area.regions if area.type == "SEQUENCE_EDITOR" else ()
            for region in regions:
                if region.type == "UI" and region.active_panel_category != SpeechPanel.bl_category:
                    with suppress(TypeError, AttributeError):  # Blender 4.5 cannot, or the tab is not there yet
                        region.active_panel_category = SpeechPanel.bl_category


def _tier(strip: Any) -> str:
    """The tier that a strip of ours shows; empty for other strips."""
    item = speech_track.item_of(strip)
    return item.tier if item is not None else ""


def _active_directed(context: bpy.types.Context) -> Any:
    """The active strip, if it shows a word of ours or directions."""
    editor = compat.sequencer_scene(context).sequence_editor if context.scene is not None else None
    strip = editor.active_strip if editor is not None else None
    return strip if strip is not None and _tier(strip) in _DIRECTED else None


def _selected_others(context: bpy.types.Context, active: Any) -> list[Any]:
    """Selected strips that show words or directions, without the active one."""
    return [
        strip
        for strip in compat.all_strips(compat.sequencer_scene(context))
        if strip.select and strip.as_pointer() != active.as_pointer() and _tier(strip) in _DIRECTED
    ]


def _cannot_follow(context: bpy.types.Context, take: Take) -> str:
    """Why the mouth of a take cannot follow its words; empty when it can."""
    model = custom_properties.record(take.action, SETTINGS).get("model", "default")
    return steering_problem(context, model if isinstance(model, str) else "default")


def _draw_directions(layout: bpy.types.UILayout, context: bpy.types.Context, found: tuple[Any, Take]) -> None:
    """What the active strip wants, and the buttons for more of it."""
    strip = _active_directed(context)
    layout.operator(WAV2SEM_OT_add_directions.bl_idname, icon="ADD")
    if strip is None:
        draw_text(layout, context, "Select a word or directions in the Sequencer to direct them", "INFO")
        return
    column = columns(layout.column(align=True))
    said = Text('How to say "{word}"', word=strip.text) if _tier(strip) == "words" else Text("What to do here")
    column.label(text=translated(said))
    for name in AMOUNTS:
        column.prop(strip, directions.attribute(name), slider=True)
    row = column.row()
    row.use_property_split = False
    for name in SWITCHES:
        row.prop(strip, directions.attribute(name))
    if reason := update_upper_face.why_still(*found, directions.read(strip, directions.keys_of(strip.id_data))):
        draw_text(layout, context, reason, "INFO")
    if _selected_others(context, strip):
        column.operator(WAV2SEM_OT_copy_directions.bl_idname, icon="COPYDOWN")


def draw(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """Draw the buttons, and what is wrong with the strips."""
    task = running_task()
    if isinstance(task, HearAgain):
        draw_progress(layout.row(align=True), task)
        return
    reason = WAV2SEM_OT_show_words.disabled_reason(context)
    found = chosen(context)
    if reason or found is None:
        draw_text(layout, context, reason, "INFO")
        return
    action = found[1].action
    layout.label(text=action.name, icon="ACTION", translate=False)
    status = track_watch.status(action)
    if status is None:
        layout.operator(WAV2SEM_OT_show_words.bl_idname, icon="SEQ_SEQUENCER")
    else:
        row = layout.row(align=True)
        row.operator_context = "INVOKE_DEFAULT"
        row.operator(WAV2SEM_OT_update_mouth.bl_idname, icon="FILE_REFRESH", depress=status.is_edited)
        row.operator(WAV2SEM_OT_hide_words.bl_idname, text="", icon="X")
        if reason := _cannot_follow(context, found[1]):
            draw_text(layout, context, Text("{reason}. Your edits are kept, and exported", reason=reason), "INFO")
        else:
            layout.prop(context.scene, "wav2sem_update_while_editing")
        for problem in status.problems[:_TOLD]:
            draw_text(layout, context, problem, "ERROR")
        if len(status.problems) > _TOLD:
            draw_text(layout, context, Text("And {n} more", n=len(status.problems) - _TOLD), "BLANK1")
        areas = context.screen.areas if context.screen is not None else ()
        if not any(area.type == "SEQUENCE_EDITOR" for area in areas):
            layout.operator(WAV2SEM_OT_open_sequencer.bl_idname, icon="SEQ_STRIP_META")
        if not status.has_words:
            draw_text(
                layout, context, "Only sounds are known. Write the words in What Is Said and animate again", "INFO"
            )
        _draw_directions(layout, context, found)
    row = layout.row(align=True)
    row.operator_context = "INVOKE_DEFAULT"
    row.operator(WAV2SEM_OT_import_words.bl_idname, icon="IMPORT")
    row.operator(WAV2SEM_OT_export_words.bl_idname, icon="EXPORT")


class WAV2SEM_PT_words(AnimateSubPanel, bpy.types.Panel):
    """The words of the chosen take."""

    bl_label = "Words"
    bl_order = 1
    bl_options: ClassVar = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """The buttons."""
        draw(self.layout, context)


class WAV2SEM_PT_words_sequencer(bpy.types.Panel):
    """The same beside the strips."""

    bl_label = "Words"
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = SpeechPanel.bl_category
    bl_translation_context = CONTEXT

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Where the strips are, not beside the preview alone."""
        space: Any = context.space_data
        return space is not None and space.view_type in {"SEQUENCER", "SEQUENCER_PREVIEW"}

    def draw(self, context: bpy.types.Context) -> None:
        """The buttons."""
        draw(self.layout, context)


def _update_automatically(context: bpy.types.Context, action: bpy.types.Action) -> None:
    """After an edit, if that is wanted and takes no time. It makes no step of undo of its own: the edit's has both."""
    scene: Any = context.scene
    if scene is None or not scene.wav2sem_update_while_editing:
        return
    found = takes.playing(action, face_of(context))
    if found is not None and update_mouth.is_ready(*found):
        try:
            update_mouth.follow(*found, pronounce=phones_of_text)
        except UserError as error:
            track_watch.tell(action, error.text)
        else:
            track_watch.forget()


def phones_of_text(text: str, language: str) -> list[str]:
    """The phones of a word, or of several, in a language."""
    return [phone for phones in pronounce(text.split(), known_language(language or _LANGUAGE)) for phone in phones]


def register() -> None:
    """Add the switch to every scene, and update after edits."""
    bpy.types.Scene.wav2sem_update_while_editing = BoolProperty(  # type: ignore[attr-defined]
        name="Update While Editing",
        description="Let the mouth follow each edit of the strips at once",
        default=True,
    )
    track_watch.on_edit(_update_automatically)


def unregister() -> None:
    """Remove it."""
    update_mouth.forget()
    del bpy.types.Scene.wav2sem_update_while_editing  # type: ignore[attr-defined]


CLASSES = (
    WAV2SEM_OT_show_words,
    WAV2SEM_OT_hide_words,
    WAV2SEM_OT_update_mouth,
    WAV2SEM_OT_add_directions,
    WAV2SEM_OT_copy_directions,
    WAV2SEM_OT_open_sequencer,
    WAV2SEM_OT_export_words,
    WAV2SEM_OT_import_words,
    WAV2SEM_PT_words,
    WAV2SEM_PT_words_sequencer,
)
