# SPDX-License-Identifier: GPL-3.0-or-later
"""Every message that a user may see, collected from the sources: docs/messages.md and the table of the user guide.

    python tools/messages.py --write

A message is the template of a `Text` or of a `UserError`, or a plain sentence that an operator reports or that says why
a button is off. "…" stands for a value. A template is a string, or a name or dictionary of strings in the same module.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "messages.md"
GUIDE = ROOT / "docs" / "user-guide.md"
COMMAND = "python tools/messages.py --write"
BEGIN, END = f"<!-- messages: {COMMAND} -->", "<!-- end of messages -->"
GAP = "…"

INTRODUCTION = f"""# Every message, and what to do

`{COMMAND}` makes this page from the sources; do not edit it. "…" stands for a name or a number. The messages are sorted
by where they arise and then by their words. A message that names no remedy of its own has the one above its table.
The [user guide](user-guide.md#when-it-does-not-work) explains those that are met most.
"""

# A heading, what to do where a message does not say it, and the files below wav2sem_blender/ or trainer/.
PLACES: list[tuple[str, str, tuple[str, ...]]] = [
    (
        "The sound",
        "Choose another recording, or convert it to wav in another program.",
        ("blender/sound/", "pipeline/audio.py", "pipeline/channel_mix.py", "pipeline/sound", "worker/look.py")
        + ("pipeline/frame_timing.py", "pipeline/prosody.py"),
    ),
    (
        "The face and its keys",
        "Choose the mesh of the head. Any Head makes keys; Key Mapping names those that it has.",
        ("blender/scene/any_head.py", "blender/scene/character.py", "blender/scene/checks.py", "blender/scene/parts.py")
        + ("blender/scene/plan.py", "blender/scene/shape_keys.py", "blender/scene/key", "blender/scene/upper_face")
        + ("blender/scene/head_sway.py", "blender/scene/jaw_bone.py", "blender/ui/any_head.py", "blender/ui/upper_face")
        + ("blender/ui/jaw_bone.py", "blender/ui/key_mapping_panel.py", "pipeline/any_head/", "pipeline/face_names.py")
        + ("pipeline/visemes.py", "pipeline/rig_names.py", "pipeline/flame.py", "pipeline/upper_face.py"),
    ),
    (
        "A run",
        "Run it again. If that does not help, the sentence names what to change.",
        ("blender/animate/", "blender/tasks/", "blender/ui/animate.py", "blender/ui/first_start.py")
        + ("blender/ui/panels.py", "blender/ui/playback.py", "blender/ui/status.py", "blender/ui/task_operator.py")
        + ("blender/ui/widgets.py", "blender/scene/adding_demo_head.py", "blender/scene/write_motion.py", "errors.py")
        + ("pipeline/infer.py", "pipeline/listening.py", "pipeline/engine", "pipeline/cost.py", "worker/client.py")
        + ("worker/protocol.py", "worker/supervisor.py", "worker/serve.py", "worker/task.py"),
    ),
    (
        "The result and its export",
        "Select another entry under Result, or animate the face first.",
        ("blender/scene/", "blender/ui/", "pipeline/key_reduction.py"),
    ),
    (
        "Preferences: Python, runtimes, models",
        "Correct what the sentence names in Edit > Preferences > Add-ons > Wav2Sem Speech Animation.",
        ("blender/preferences/", "worker/"),
    ),
    (
        "Model folders and checkpoints",
        "The files do not fit together or are damaged: copy or import the whole model again.",
        ("pipeline/checkpoint", "pipeline/hosts/", "pipeline/nn/", "pipeline/official/", "pipeline/flame_parameters.py")
        + ("pipeline/restricted_pickle.py", "pipeline/given_features.py"),
    ),
    (
        "A batch",
        "Correct the row of the manifest that the sentence names, and give the same command again.",
        ("batch/",),
    ),
    (
        "Files, the command line and Python",
        "Correct the value or the file that the sentence names.",
        (),  # whatever is nowhere else
    ),
    (
        "Training: data sets and speech",
        "Correct the file that the sentence names; docs/training.md describes each data set.",
        ("trainer/datasets/", "trainer/speech/", "trainer/motion/", "trainer/mesh_registration/"),
    ),
    (
        "Training: runs, evaluation, analysis",
        "Correct the option or the file that the sentence names; `python -m trainer COMMAND --help` lists the options.",
        ("trainer/",),
    ),
]

# What the guide adds to the messages that are met most: the beginning of each, and what to do.
EXPLAINED: dict[str, str] = {
    '"…" has no face keys;': (
        "[Any Head](#any-head) makes keys. Or choose the mesh that has them: teeth and hair have none"
    ),
    "The mouth has no …": "the rest of the speech works. Add the key, or map another one",
    '"…" has no shape keys with ARKit names (such as jawOpen) or viseme names': "as above; or **Key Mapping**",
    "Landmarks placed;": "not an error: check all ten before you go on",
    "No face was found on this mesh;": "the mesh lies down, looks away, or is unlike a face: place all ten by hand",
    "The landmarks do not form a face.": "swap left and right, or remove the landmarks and place them again",
    "The upper and the lower lip are one surface": (
        "in Edit Mode rip the line between the lips (<kbd>V</kbd>), then try again"
    ),
    '"…": the shape key … is muted.': "tick its checkbox in *Object Data ▸ Shape Keys*",
    '"…": a driver controls the shape key …': "this mesh follows another one: animate that one, or remove the driver",
    '"…" has absolute shape keys.': "*Object Data ▸ Shape Keys ▸ Relative*",
    '"…" is in … Mode.': "<kbd>Tab</kbd>, or the mode's menu",
    '"…" is hidden.': "<kbd>Alt H</kbd>, or the eye in the *Outliner*",
    '"…" is linked from another file. Make a library override': (
        "*Object ▸ Library Override ▸ Make*. Its mesh needs one too: the next message says how"
    ),
    '"…": an NLA track is solo': "the star in the NLA editor",
    "No audio is chosen.": "choose it in the **Speech** panel",
    'There is no file "…" in …;': "the file was moved or renamed",
    '"…" has no sound that Blender can read;': "convert it to wav",
    "…: the recording is silent:": "a muted track, or the wrong channel",
    "…: … s of audio; at least … s is needed.": "use a longer recording",
    "The sound ends at … s, before the range begins;": "**Range** is still set for another sound",
    'The strip "…" changes its speed and begins before frame 0': "move it, or *Strip ▸ Retiming ▸ Reset*",
    "…: what the strip plays cannot be mixed down": "*Render ▸ Render Audio*, then choose that file",
    'The shape key "…" would need the value': "lower **Strength**, or the key's **Gain**",
    'There is no model "…". Known': "choose one from the list, or check **Models Folder** in the preferences",
    "Blender has no sound device.": "*Preferences ▸ System ▸ Sound*",
    "…; press Esc to cancel it": "one task runs at a time; the bar names it",
    'The mesh "…" was deleted meanwhile.': "undo, or choose another mesh. Nothing was written",
    "There is not enough memory.": "close other programs, or animate a **Range**",
    '"…" has no shape keys for lids, eyes or brows': "the mouth works. Add keys, or switch **Upper Face** off",
    'The action "…" has no record of its audio.': "another tool made it; animate from the panel",
    "Online access is off;": "only for **Install Torch Runtime** and **Install Recogniser Runtime**",
}

# Clauses that begin with one of these say what to do.
_IMPERATIVES = """
add adjust allow animate check choose clear close convert copy correct create cut delete download drag edit enable
export fill free fuse get give go import install join leave lower make mirror move place press push put raise record
reduce reinstall remove rename repair report return run save select set show start switch train transpose try undo
unmute update use wait widen
""".split()
_REMEDY = re.compile(rf"(?<=[.;:]) (?=(?:{'|'.join(_IMPERATIVES)}|in the [\w' ]+,|on Debian)\b)", re.IGNORECASE)
_VALUE = re.compile(r"\{\w*(?:[:!][^}]*)?\}")
# Calls whose template another place gives, where it is found.
_FROM_ELSEWHERE = {"Text(words)", "Text(template, **values)", "Text(found, **values)", "Text(self._name)"}
_REASONS = re.compile(r"reason|problem|missing$|cannot")


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message; `kind` is "error", or "note" for a text that tells something or is a part of another one."""

    template: str
    kind: str
    path: str

    @property
    def shown(self) -> str:
        """Its words, with … for every value."""
        return _VALUE.sub(GAP, self.template).replace("{{", "{").replace("}}", "}").strip()

    @property
    def fact(self) -> str:
        """What it says is wrong."""
        return _REMEDY.split(self.shown, maxsplit=1)[0].rstrip(";:")

    @property
    def remedy(self) -> str:
        """What it says to do; empty where it does not."""
        return self.shown[len(self.fact) :].lstrip(";: ")

    @property
    def explained(self) -> str:
        """What the guide adds."""
        return next((text for begin, text in EXPLAINED.items() if self.shown.startswith(begin)), "")

    @property
    def place(self) -> str:
        """The heading that it stands below."""
        others = next(heading for heading, _, paths in PLACES if not paths)
        return next((heading for heading, _, paths in PLACES if self.path.startswith(paths)), others)


class UnreadableTemplateError(Exception):
    """A template that is neither a string nor a name or dictionary of strings in the same module."""


@cache
def messages() -> list[Message]:
    """Every message once a place, an error before a note of the same words, sorted by its words.

    Raises:
        UnreadableTemplateError: A template cannot be found in the sources.
    """
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(_sources())}
    errors = _error_classes(trees.values())
    found: dict[tuple[str, str], Message] = {}
    for path, tree in trees.items():
        name = path.relative_to(ROOT).as_posix().removeprefix("wav2sem_blender/")
        for template, kind in _messages_of(tree, name, errors):
            message = Message(template=template, kind=kind, path=name)
            if re.search("[A-Za-z]{2}", _VALUE.sub("", template)):
                key = (message.place, message.shown)
                if key not in found or kind == "error":
                    found[key] = message
    return sorted(found.values(), key=lambda message: (_words(message.shown), message.shown))


def page() -> str:
    """The whole of docs/messages.md."""
    everything, parts = messages(), [INTRODUCTION]
    for heading, remedy, _ in PLACES:
        here = [message for message in everything if message.place == heading]
        asking = [message for message in here if message.kind == "error" or message.remedy or message.explained]
        rows = [_row(message) for message in asking]
        notes = [f"- {_escaped(message.shown)}" for message in here if message not in asking]
        parts.append(f"## {heading}\n\n{remedy}\n")
        if rows:
            parts.append("| message | what to do |\n|---|---|\n" + "\n".join(rows) + "\n")
        if notes:
            parts.append("Said along the way, alone or within another sentence:\n\n" + "\n".join(notes) + "\n")
    return "\n".join(parts)


def table() -> str:
    """The guide's table: the messages that it explains, in the order of the work."""
    everything = messages()
    rows = []
    for begin, remedy in EXPLAINED.items():
        found = next((message for message in everything if message.shown.startswith(begin)), None)
        if found is None:
            raise SystemExit(f"no message begins with {begin!r}; correct EXPLAINED in {Path(__file__).name}")
        rows.append(f"| {_escaped(found.shown)} | {remedy} |")
    return "| message | what to do |\n|---|---|\n" + "\n".join(rows)


def guide() -> str:
    """The guide with its table."""
    text = GUIDE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def main() -> None:
    """Print the page; --write makes it and the guide's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/messages.md and the table of the user guide")
    if not parser.parse_args().write:
        print(page())
        return
    for path, text in (PAGE, page()), (GUIDE, guide()):
        path.write_text(text, encoding="utf-8")


def _sources() -> Iterator[Path]:
    for package in ("wav2sem_blender", "trainer"):
        yield from (ROOT / package).rglob("*.py")


def _error_classes(trees: Iterable[ast.Module]) -> set[str]:
    """`UserError` and the names of its descendants."""
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found, before = {"UserError"}, 0
    while len(found) > before:
        before = len(found)
        found |= {name for name, own in bases.items() if own & found}
    return found


def _messages_of(tree: ast.Module, name: str, errors: set[str]) -> Iterator[tuple[str, str]]:
    """Templates of a module and their kinds; `name` is its path below the package."""
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.Module | ast.FunctionDef):
            continue
        says_why = name.startswith("blender/") and isinstance(scope, ast.FunctionDef) and _REASONS.search(scope.name)
        for node in _own_nodes(scope):
            if isinstance(node, ast.Call):
                yield from _called(node, scope, tree, name, errors)
            elif isinstance(node, ast.Return) and says_why and node.value is not None:
                yield from ((text, "error") for text in _strings(node.value, scope, tree) or () if " " in text)


def _called(node: ast.Call, scope: ast.AST, tree: ast.Module, name: str, errors: set[str]) -> Iterator[tuple[str, str]]:
    called = ast.unparse(node.func).rpartition(".")[2]
    if name.startswith("blender/") and (called == "_failed" or (called == "tell" and len(node.args) == 2)):
        kind = "note" if "INFO" in ast.unparse(node.args[0]) else "error"
        yield from ((text, kind) for text in _strings(node.args[-1], scope, tree) or ())
    elif node.args and (called == "Text" or called in errors):
        pieces = [_strings(argument, scope, tree) for argument in node.args]
        if pieces[0] is None and ast.unparse(node) not in _FROM_ELSEWHERE:
            raise UnreadableTemplateError(f"{name}, line {node.lineno}: {ast.unparse(node)[:90]}")
        kind = "note" if called == "Text" else "error"
        yield from ((": ".join(texts), kind) for texts in itertools.product(*filter(None, pieces)) if texts)


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function or module without those of the functions inside."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _own_nodes(child)


def _strings(node: ast.AST | None, scope: ast.AST, tree: ast.Module, names: tuple[str, ...] = ()) -> list[str] | None:
    """The strings that an expression may be, None if they are not in this module; `names` are being looked up."""
    parts: list[ast.AST]
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            return ["".join(str(value.value) if isinstance(value, ast.Constant) else "{}" for value in values)]
        case ast.IfExp(body=body, orelse=other):
            parts = [body, other]
        case ast.BoolOp(values=values) | ast.Dict(values=values) | ast.Tuple(elts=values) | ast.List(elts=values):
            parts = list(values)
        case ast.Subscript(value=value) | ast.Starred(value=value):
            parts = [value]
        case ast.Call(func=ast.Attribute(value=value, attr="get" | "values")):
            parts = [value]
        case ast.Name(id=name):
            if name in names:
                return None
            names, parts = (*names, name), _values_of(name, scope, tree)
        case _:
            return None
    found = [_strings(part, scope, tree, names) for part in parts]
    return list(dict.fromkeys(text for texts in found for text in texts or ())) or None


def _values_of(name: str, scope: ast.AST, tree: ast.Module) -> list[ast.AST]:
    """What is assigned to a name in its function or module, or given for it where it is an argument."""
    if isinstance(scope, ast.FunctionDef) and name in (names := [argument.arg for argument in scope.args.args]):
        number = names.index(name) - (names[0] in ("self", "cls"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        calls = [call for call in calls if ast.unparse(call.func).rpartition(".")[2] == scope.name]
        given = [call.args[number] for call in calls if len(call.args) > number]
        return [*given, *(keyword.value for call in calls for keyword in call.keywords if keyword.arg == name)]
    found: list[ast.AST] = []
    for node in (*_own_nodes(scope), *_own_nodes(tree)):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = node.iter if isinstance(node, ast.For | ast.comprehension) else getattr(node, "value", None)
        named = {inner.id for target in targets if target for inner in ast.walk(target) if isinstance(inner, ast.Name)}
        if isinstance(value, ast.expr) and name in named:
            found.append(value)
    if not any(_strings(value, scope, tree, (name,)) for value in found):
        # It came through another function: any sentence with values that the module names may be meant.
        named_here = [node.value for node in tree.body if isinstance(node, ast.Assign)]
        found = [value for value in named_here if isinstance(value, ast.Constant) and "{" in str(value.value)]
    return found


@cache
def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _row(message: Message) -> str:
    remedy, explained = (text[:1].upper() + text[1:] for text in (message.remedy, message.explained))
    if remedy and explained:
        remedy = remedy.rstrip(".") + "."
    what = " ".join(filter(None, (remedy, explained))).replace("](#", "](user-guide.md#")
    return f"| {_escaped(message.fact)} | {_escaped(what)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
