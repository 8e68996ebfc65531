# SPDX-License-Identifier: GPL-3.0-or-later
"""Both languages have every text that the add-on shows, and nothing else.

The texts come from the registered classes and from the sources. Blender as a module has no translations, so
tests/gui/scenarios_translations.py checks in a window that Blender uses them.
"""

import ast
import re
from functools import cache
from pathlib import Path

import bpy
import pytest

from wav2sem_blender.blender import registration, translations
from wav2sem_blender.blender.translations import LANGUAGES, catalogue, translated
from wav2sem_blender.blender.ui import widgets
from wav2sem_blender.errors import Text

PACKAGE = Path(registration.__file__).parents[1]
FOLDER = Path(translations.__file__).parent
OPEN = re.compile(r"\{(\w*)[^}]*\}")

# Files whose sentences are all for the user. Other files may have entries too.
SHOWN = [
    path
    for path in sorted((PACKAGE / "blender").rglob("*.py"))
    if path.name not in ("command.py", "batch_command.py")
    and path.parent.name != "demo"
    and path.name != "demo_head.py"
]
SHOWN += [PACKAGE / "pipeline" / "any_head" / f"{name}.py" for name in ("landmarks", "transfer")]

# Files in which every `Text` and `UserError` is for Blender's users too; the rest of the pipeline also serves scripts.
_PIPELINE = ("flame", "face_names", "sound_file", "checkpoint", "engine_onnx", "engine_torch", "stand_ins")
_PIPELINE += tuple(f"words/{name}" for name in ("transcript", "spoken", "pronunciation", "track", "track_files"))
TEMPLATED = [PACKAGE / "errors.py", *sorted((PACKAGE / "worker").glob("*.py"))]
TEMPLATED += [PACKAGE / "pipeline" / f"{name}.py" for name in _PIPELINE]

# Names of data in the .blend file, which stay in English.
NAMES_OF_DATA = {"Speech Rest", "Phones 1", "Phones 2", "Directions"}
# What takes a template.
TEMPLATES_OF = {"Text", "UserError", "MissingFileError"}
# Arguments of Blender's functions that are shown.
SHOWN_BY = {"text", "heading", "placeholder", "title", "message", "confirm_text"}


def template(node: ast.AST) -> str | None:
    """A string of the source; an f-string, which has no translation, with `{}` for its values."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    return "".join(piece.value if isinstance(piece, ast.Constant) else "{}" for piece in node.values)


@cache
def strings(path: Path) -> dict[str, tuple[int, bool]]:
    """Strings of a source file except docstrings: their line, and whether a drawing function shows them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped, shown = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr):
            skipped.add(node.body[0].value)
        if isinstance(node, ast.JoinedStr):
            skipped.update(node.values)
        if isinstance(node, ast.FunctionDef) and re.match("_?draw", node.name):
            shown.update(ast.walk(node))
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                shown.update(ast.walk(keyword.value) if keyword.arg in SHOWN_BY else ())
    found = {}
    for node in ast.walk(tree):
        text = template(node) if node not in skipped else None
        if text is not None:
            found[text] = (node.lineno, node in shown or found.get(text, (0, False))[1])
    return found


def is_shown(text: str, by_drawing: bool) -> bool:
    """Whether it is a text, not an identifier: it has a space, or is drawn and capitalised."""
    words = OPEN.sub("", text)
    if text in NAMES_OF_DATA or not re.search(r"[A-Za-z]{3}", words):
        return False
    is_sentence = re.search(r'[\w"}.,…] [\w"{(]', text) and not re.match(r"[a-z_]+\[|\{\"", text)
    return bool(is_sentence or (by_drawing and re.match(r"[A-Z][a-z]", words)))


def templates(path: Path) -> dict[str, int]:
    """Templates with words of the file's texts and errors, and their lines."""
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    first = [call.args[0] for call in calls if ast.unparse(call.func) in TEMPLATES_OF and call.args]
    return {
        text: node.lineno for node in first if (text := template(node)) and re.search("[A-Za-z]", OPEN.sub("", text))
    }


def sentences() -> dict[str, str]:
    """Texts that the sources show, and their places."""
    found = {
        (text, path): line
        for path in SHOWN
        for text, (line, by_drawing) in strings(path).items()
        if is_shown(text, by_drawing)
    }
    found |= {(text, path): line for path in TEMPLATED for text, line in templates(path).items()}
    return {text: f"{path.relative_to(PACKAGE.parent)}:{line}" for (text, path), line in found.items()}


def rna_of(cls: type) -> bpy.types.Struct:
    """The RNA of a registered class."""
    if issubclass(cls, bpy.types.Operator):
        module, _, name = cls.bl_idname.partition(".")
        return getattr(getattr(bpy.ops, module), name).get_rna_type()
    return cls.bl_rna


def names_of(setting: bpy.types.Property, owner: str) -> dict[str, str]:
    """Names and tooltips of a property and its enum items."""
    things = (setting, *(setting.enum_items if setting.type == "ENUM" else ()))
    return {text: f"{owner}.{setting.identifier}" for thing in things for text in (thing.name, thing.description)}


def interface() -> dict[str, str]:
    """Labels, names and tooltips of classes and properties, and their owners."""
    found = {}
    for cls in registration.CLASSES:
        found[getattr(cls, "bl_label", "")] = cls.__name__
        rna = rna_of(cls)
        if issubclass(cls, bpy.types.Operator):
            found[rna.description] = cls.__name__
        ours = [base for base in cls.__mro__ if base.__module__.startswith(PACKAGE.name)]
        own = {name for base in ours for name in base.__dict__.get("__annotations__", ()) if not name.startswith("bl_")}
        for setting in rna.properties:
            if setting.identifier in own and not setting.is_hidden:
                found |= names_of(setting, cls.__name__)
    for owner in (bpy.types.Scene, bpy.types.Object, bpy.types.WindowManager):
        for setting in owner.bl_rna.properties:
            if setting.identifier.startswith("wav2sem") and setting.type != "POINTER":
                found |= names_of(setting, owner.__name__)
    # Names such as "X", "CSV" and "glTF" are the same in every language.
    return {text: place for text, place in found.items() if re.search(r"[a-z]{3}", text)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_shown_text_has_an_entry(language):
    missing = [
        f"{place}: {text!r}"
        for text, place in {**sentences(), **interface()}.items()
        if text not in catalogue(language)
    ]
    advice = "add these beside similar ones; one with {} is an f-string, which must become a Text"
    assert not missing, f"{FOLDER / language}.json: {advice}:\n" + "\n".join(missing)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_entry_is_unused(language):
    known = {text for path in PACKAGE.rglob("*.py") for text in strings(path)} | set(interface())
    unused = [text for text in catalogue(language) if text not in known]
    assert not unused, f"remove these from {FOLDER / language}.json, or bring them up to date:\n" + "\n".join(unused)


def test_the_languages_have_the_same_entries_in_the_same_order():
    assert list(catalogue(LANGUAGES[0])) == list(catalogue(LANGUAGES[1]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_placeholders_of_its_entry(language):
    for entry, words in catalogue(language).items():
        names = sorted(OPEN.findall(entry))
        assert all(map(str.isidentifier, names)) and sorted(OPEN.findall(words)) == names, f"{language}: {entry!r}"
        assert words.strip() or not entry.strip(), f"{language}: {entry!r} is empty"
        assert (words[0] == " ") <= (entry[0] == " "), f"{language}: {entry!r}"
        if OPEN.search(words):
            words.format(**dict.fromkeys(names, 1))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_ends_with_a_period_where_its_entry_does(language):
    for entry, words in catalogue(language).items():
        assert entry.endswith(".") == words.endswith((".", "。")), f"{language}: {entry!r}"


def in_language(sentence: str, language: str) -> str:
    return translated(sentence, lambda entry, _context: catalogue(language).get(entry, entry))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_is_translated_with_its_values(language):
    for entry, words in catalogue(language).items():
        if not re.search("[a-z]{2}", entry):
            continue
        values = {name: 1 for name in OPEN.findall(entry)}
        expected = words.format(**values) if values else words
        assert in_language(Text(entry, **values) if values else entry, language) == expected, entry


def test_sentences_inside_sentences_are_translated_and_names_are_not():
    speaking = '"{face}" has no speech animation yet'
    assert in_language(Text(speaking, face="Export"), "de") == '"Export" hat noch keine Sprachanimation'
    fault = Text("the mesh has {n_vertices} vertices, FLAME has {n_expected}.", n_vertices=8, n_expected=5023)
    inner = Text("{test}: {found}", test=Text("Vertex count"), found=fault)
    whole = in_language(Text("The upper face was left alone. {reason}", reason=inner), "de")
    assert whole == "Das Obergesicht blieb unverändert. Punktzahl: das Mesh hat 8 Punkte, FLAME hat 5023."


def test_texts_without_an_entry_stay_as_they_are():
    for sentence in ("CUDA error: device-side assert.", "Foo. Bar.", "", "12 s", "a: b", Text("{a} {b}", a=1, b=2)):
        assert in_language(sentence, "zh_HANS") == sentence


def test_in_english_nothing_changes():
    for entry in catalogue(LANGUAGES[0]):
        assert translated(entry) == entry


def test_paths_and_chinese_wrap_without_spaces_but_not_before_punctuation():
    assert widgets.lines_of('"Cube" 没有面，请导入。', 10, len) == ['"Cube" 没有', "面，请导入。"]
    assert widgets.lines_of("/home/somebody/models", 12, len) == ["/home/", "somebody/", "models"]
    assert widgets.lines_of("没有面，请", 3, len) == ["没有", "面，请"]
