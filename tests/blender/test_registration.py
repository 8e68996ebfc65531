# SPDX-License-Identifier: GPL-3.0-or-later
"""Clean registration, honest metadata, and panels that draw."""

import subprocess
import sys
from pathlib import Path

import bpy
import pytest

import wav2sem_blender
from wav2sem_blender.blender import addon_preferences as stored_preferences
from wav2sem_blender.blender import registration
from wav2sem_blender.blender.animate import settings
from wav2sem_blender.blender.preferences import page
from wav2sem_blender.blender.ui import properties
from wav2sem_blender.worker import environment

ROOT = Path(__file__).resolve().parents[2]


def test_unregister_leaves_nothing_and_register_works_again():
    wav2sem_blender.unregister()
    try:
        assert not [name for name in dir(bpy.types) if name.startswith("WAV2SEM")]
        assert not hasattr(bpy.types.Scene, "wav2sem")
        with pytest.raises(KeyError):
            bpy.ops.wav2sem.animate.get_rna_type()
    finally:
        wav2sem_blender.register()
    assert len([name for name in dir(bpy.types) if name.startswith("WAV2SEM")]) >= 3


def test_importing_the_package_imports_nothing():
    code = "import sys, wav2sem_blender; print([m for m in ('bpy', 'numpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_blenders_process_loads_no_engine():
    """After a whole registration, and after the checks that a run makes before the worker takes over."""
    code = (
        "import sys, bpy, wav2sem_blender; wav2sem_blender.register();"
        "bpy.ops.wm.read_factory_settings(use_empty=True);"
        "print([m for m in ('torch', 'onnxruntime', 'soundfile', 'soxr', 'transformers') if m in sys.modules]);"
        "wav2sem_blender.unregister()"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip().splitlines()[-1] == "[]"


def properties_of(cls):
    names = {"rna_type", "name", "bl_idname"}
    return [prop for prop in cls.bl_rna.properties if prop.identifier not in names]


def test_labels_are_title_case_and_tooltips_have_no_final_period():
    operator = bpy.ops.wav2sem.animate.get_rna_type()
    assert operator.name == "Animate from Speech"
    assert not operator.description.endswith(".")
    own = [prop for prop in operator.properties if prop.identifier != "rna_type"]
    assert len(own) == 21
    for prop in own + properties_of(properties.WAV2SEM_PG_settings):
        assert prop.name[0].isupper(), prop.identifier
        assert prop.description and not prop.description.endswith("."), prop.identifier


def test_panel_and_operator_agree_on_defaults():
    operator = bpy.ops.wav2sem.animate.get_rna_type().properties
    panel = properties.WAV2SEM_PG_settings.bl_rna.properties
    for name in (
        "model",
        "start_frame",
        "strength",
        "semantic_strength",
        "smoothing_s",
        "delay_s",
        "range_end_s",
        "style",
        "articulation",
        "tongue",
    ):
        assert operator[name].default == panel[name].default
        assert operator[name].name == panel[name].name


def test_models_of_the_preferences(addon_preferences, tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "config.json").write_text("{}")
    (tmp_path / "no_model").mkdir()
    addon_preferences.models_folder = str(tmp_path)
    assert settings.model_names(bpy.context) == ["default", "large"]
    assert settings.resolve_model(bpy.context, "large") == str(tmp_path / "large")
    assert settings.resolve_model(bpy.context, "") == "default"
    assert settings.resolve_model(bpy.context, str(tmp_path / "no_model")) == str(tmp_path / "no_model")
    with pytest.raises(ValueError, match="Known are: default, large"):
        settings.resolve_model(bpy.context, "small")


def test_styles_are_suggested_by_name_but_those_that_articulation_mixes(tmp_path):
    assert settings.style_names(bpy.context, "default") == ["natural", "artist"]
    (tmp_path / "config.json").write_text('{"model": {"styles": ["calm", "loud"]}}')
    assert settings.style_names(bpy.context, str(tmp_path)) == ["calm", "loud"]
    (tmp_path / "config.json").write_text('{"model": {"styles": ["dull", "sharp"], "articulation": ["dull", "sharp"]}}')
    assert settings.style_names(bpy.context, str(tmp_path)) == ["dull"], "the default"
    (tmp_path / "config.json").write_text('{"wav2sem": {}}')
    assert settings.style_names(bpy.context, str(tmp_path)) == []
    assert settings.style_names(bpy.context, "nowhere") == []


def test_python_of_the_preferences(addon_preferences):
    assert settings.worker_environment(bpy.context) == environment.embedded()
    addon_preferences.torch_python = sys.executable
    chosen = settings.worker_environment(bpy.context)
    assert chosen.python == Path(sys.executable)
    assert chosen.paths == ()


def test_defaults_without_preferences():
    defaults = stored_preferences.get(bpy.context)
    assert (defaults.device, defaults.torch_python, defaults.models_folder) == ("auto", "", "")
    names = {prop.identifier for prop in properties_of(page.WAV2SEM_AP_preferences)}
    assert names >= vars(defaults).keys()


def test_classes_are_listed_once():
    assert len(set(registration.CLASSES)) == len(registration.CLASSES)
