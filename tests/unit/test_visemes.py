# SPDX-License-Identifier: GPL-3.0-or-later
"""ARKit curves as visemes: lips close and open as the ARKit curves say, tuck for f, and weights do not flicker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline import visemes as visemes_module
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS, Motion
from wav2sem_blender.pipeline.visemes import (
    MEASURE_NAMES,
    MEASURES,
    VISEME_SETS,
    VisemeSet,
    as_arkit,
    as_visemes,
    measured,
)

ASSETS = Path(__file__).parents[2] / "wav2sem_blender" / "assets"
_LIFTED = {"mouthUpperUpLeft": 0.21, "mouthUpperUpRight": 0.21}
OPENING, TUCK = MEASURE_NAMES.index("opening"), MEASURE_NAMES.index("tuck")


def held(n_frames=30, fps=30.0, **weights):
    """A pose held for a second."""
    channels = tuple(MEASURES)
    row_K = np.array([weights.get(channel, 0.0) for channel in channels])
    return Motion(weights_TK=np.tile(row_K, (n_frames, 1)), channels=channels, fps=fps)


def weights_of(motion):
    return dict(zip(motion.channels, motion.weights_TK[len(motion.weights_TK) // 2], strict=True))


def babble(n_frames=120, fps=30.0):
    """The jaw opens and closes four times in four seconds; the lips form a p at each closure."""
    phase_T = np.arange(n_frames) / n_frames * 8 * np.pi
    opened_T = np.square(np.sin(phase_T / 2))
    weights_TK = np.stack([0.4 * opened_T, 0.2 * (1 - opened_T), 0.1 * np.sin(phase_T / 7)], axis=1)
    return Motion(weights_TK=weights_TK, channels=("jawOpen", "mouthPressLeft", "mouthPucker"), fps=fps)


@pytest.fixture(scope="module")
def spoken():
    """The bundled model on the demo's speech."""
    if not (ASSETS / "models/default/config.json").exists():
        pytest.skip("the repository has no bundled model")
    pytest.importorskip("onnxruntime", reason="the bundled model needs ONNX Runtime")
    import soundfile

    from wav2sem_blender.pipeline import SpeechAnimator

    waveform, rate = soundfile.read(ASSETS / "demo_speech.flac")
    return SpeechAnimator.load("default", engine="onnx").animate(waveform, rate)


@pytest.fixture(scope="module")
def demo_opening():
    """The effect of each ARKit key of the demo head on its lip pairs: channel to mm (P,)."""
    with np.load(ASSETS / "demo_head.npz", allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    upper, lower = data["lip_pairs"].astype(int).T
    found = {}
    for index, name in enumerate(data["key_names"]):
        span = slice(int(data["key_starts"][index]), int(data["key_starts"][index + 1]))
        up_V = np.zeros(len(data["points"]))
        up_V[data["key_vertices"][span]] = data["key_offsets"][span][:, 2] * data["key_unit_m"]
        found[str(name)] = 1000 * (up_V[upper] - up_V[lower])
    return found


def opening_mm(motion, opening_of):
    """Height of the mouth's opening in every frame, 0 when the lips meet."""
    pairs_KP = np.stack([opening_of[channel] for channel in motion.channels])
    return np.maximum((motion.weights_TK @ pairs_KP).max(axis=1), 0)


CLOSED = {
    "Oculus visemes": ("PP", "FF"),
    "Rhubarb mouth shapes": ("A", "G"),
    "VRM vowels": (),
    "DAZ visemes": ("M", "F"),
    "Character Creator visemes": ("Explosive", "Dental_Lip"),
    "Preston Blair shapes": ("MBP", "FV"),
}


@pytest.mark.parametrize("name", VISEME_SETS)
class TestEverySet:
    def test_the_demos_lips_open_and_close_alike(self, name, spoken, demo_opening):
        visemes = VISEME_SETS[name]
        before_T = opening_mm(spoken, demo_opening)
        after_T = opening_mm(as_arkit(as_visemes(spoken, visemes), visemes), demo_opening)
        assert np.corrcoef(before_T, after_T)[0, 1] > 0.98
        # Of up to 10 mm; Character Creator has but one viseme between open and closed.
        assert np.sqrt(np.mean(np.square(after_T - before_T))) < (1.5 if name == "CHARACTER_CREATOR" else 1.15)
        inner = before_T[1:-1]
        closures = 1 + np.flatnonzero((inner <= before_T[:-2]) & (inner < before_T[2:]) & (inner < 1.0))
        assert len(closures) >= 10
        assert all(after_T[t - 1 : t + 2].min() < 1.0 for t in closures)

    def test_lips_of_another_shape_close_as_well(self, name, spoken, demo_opening):
        """Medians of ten faces whose visemes differ at random from their descriptions, by a third."""
        visemes, rng = VISEME_SETS[name], np.random.default_rng(11)
        animated = as_visemes(spoken, visemes)
        before_T = opening_mm(spoken, demo_opening)
        kept, correlations = [], []
        for _ in range(10):
            varied = {
                viseme: {channel: weight * rng.uniform(0.67, 1.33) for channel, weight in weights.items()}
                for viseme, weights in visemes.weights.items()
            }
            after_T = opening_mm(as_arkit(animated, VisemeSet("varied", varied)), demo_opening)
            closed_T = before_T < 1.0
            kept.append(np.mean(after_T[closed_T] < 2.0))
            correlations.append(np.corrcoef(before_T, after_T)[0, 1])
        assert np.median(kept) > 0.9
        assert np.median(correlations) > 0.95

    def test_each_viseme_finds_itself_or_its_like(self, name):
        """The pose of a viseme gives visemes that look like it; only visemes that differ by the tongue are confused."""
        visemes = VISEME_SETS[name]
        for weights in visemes.weights.values():
            pose = held(**weights)
            seen = measured(as_arkit(as_visemes(pose, visemes), visemes))[15]
            # A set without closed lips cannot press or tuck them, and may miss only that.
            limit_mm = {"opening": 1.6, "upper lip": 1.0, "width": 1.5, "protrusion": 1.0, "tuck": 1.0, "jaw": 4.0}
            for measure, value, wanted in zip(MEASURE_NAMES, seen, measured(pose)[15], strict=True):
                assert abs(value - wanted) < limit_mm[measure], (weights, measure)

    def test_all_weights_are_plausible(self, name, spoken):
        animated = as_visemes(spoken, VISEME_SETS[name])
        assert animated.channels == VISEME_SETS[name].names
        assert animated.weights_TK.min() >= 0
        assert animated.weights_TK.max() <= 1
        assert animated.fps == spoken.fps and animated.n_frames == spoken.n_frames
        assert animated.basis_KV3 is None
        assert animated.info == spoken.info

    def test_rest_stays_rest(self, name):
        weights = weights_of(as_visemes(held(), VISEME_SETS[name]))
        assert {viseme: weight for viseme, weight in weights.items() if weight > 1e-6} == (
            {"OCULUS": {"sil": 1.0}, "RHUBARB": {"X": 1.0}, "PRESTON_BLAIR": {"rest": 1.0}}.get(name, {})
        )

    def test_the_minimum_is_found(self, name):
        """Conditions of optimality for a held pose: slope 0 for weights above 0, no negative slope for weights at 0."""
        visemes = VISEME_SETS[name]
        pose = held(jawOpen=0.3, mouthFunnel=0.2, mouthSmileLeft=0.2, n_frames=5)
        found = np.array(list(weights_of(as_visemes(pose, visemes)).values()))
        cost = self.cost(pose, visemes, found)
        for index in range(len(found)):
            if visemes.weights[visemes.names[index]]:
                for change in (-0.02, 0.02):
                    other = found.copy()
                    other[index] = max(0, other[index] + change)
                    assert self.cost(pose, visemes, other) >= cost - 1e-4

    @staticmethod
    def cost(pose, visemes, weights_N):
        """The plain formula; the pose is open and held, so closures and changes add nothing."""
        noticeable = np.array([0.4, 4.0, 1.0, 1.5, 0.8, 0.4])
        wanted = measured(pose)[0]
        noticeable[OPENING] += 0.1 * wanted[OPENING]
        mixture = Motion(weights_TK=weights_N[None], channels=visemes.names, fps=30)
        misses = (measured(as_arkit(mixture, visemes))[0] - wanted) / noticeable
        ridge = np.array([6.0 if name in visemes.by_tongue else 2.0 for name in visemes.names])
        closed = CLOSED[visemes.label]
        ridge += [20.0 * (name in closed) for name in visemes.names]
        ridge *= [bool(visemes.weights[name]) for name in visemes.names]
        return 0.5 * np.sum(misses**2) + 0.5 * np.dot(ridge, np.square(weights_N))

    def test_frame_rate_changes_nothing(self, name):
        slow, fast = (as_visemes(babble(n, fps), VISEME_SETS[name]) for n, fps in ((120, 30.0), (240, 60.0)))
        np.testing.assert_allclose(fast.weights_TK[::2], slow.weights_TK, atol=0.08)

    def test_nothing_flickers(self, name, monkeypatch):
        """A tremble of 0.005 stays small; the cost on change reduces it by at least a quarter."""
        rng = np.random.default_rng(3)
        steady = held(120, jawOpen=0.2, mouthFunnel=0.1)
        trembling = replace(steady, weights_TK=steady.weights_TK + 0.005 * rng.normal(size=steady.weights_TK.shape))

        def flicker():
            changes = np.diff(as_visemes(trembling, VISEME_SETS[name]).weights_TK, n=2, axis=0)
            return np.abs(changes).mean()

        steadied = flicker()
        monkeypatch.setattr(visemes_module, "_STEADINESS", 0.0)
        assert steadied < 0.02
        assert steadied < 0.75 * flicker()


def test_closed_lips_within_speech_are_pressed():
    animated = as_visemes(babble(), VISEME_SETS["OCULUS"])
    pressed_T = animated.weights_TK[:, animated.channels.index("PP")]
    shut = [30, 60, 90]
    assert pressed_T[shut].min() > 0.5
    assert pressed_T[[15, 45, 75, 105]].max() < 0.05


def test_closed_lips_at_rest_are_not_pressed():
    weights = weights_of(as_visemes(held(jawOpen=0.02, mouthClose=0.02), VISEME_SETS["OCULUS"]))
    assert weights["PP"] < 0.1 and weights["sil"] > 0.9


@pytest.mark.parametrize(("name", "viseme"), [("OCULUS", "FF"), ("RHUBARB", "G")])
def test_a_tucked_lip_is_f(name, viseme):
    pose = held(jawOpen=0.1, mouthClose=0.05, mouthRollLower=0.4, mouthUpperUpLeft=0.1, mouthUpperUpRight=0.1)
    weights = weights_of(as_visemes(pose, VISEME_SETS[name]))
    assert max(weights, key=weights.get) == viseme and weights[viseme] > 0.5


@pytest.mark.parametrize(
    ("viseme", "pose"),
    [
        ("U", {"jawOpen": 0.28, "mouthClose": 0.2, "mouthPucker": 0.65, "mouthRollUpper": 0.31}),
        ("U", {"jawOpen": 0.18, "mouthClose": 0.13, "mouthPucker": 0.63}),
        ("FF", {"jawOpen": 0.17, "mouthClose": 0.1, "mouthPucker": 0.35, "mouthRollLower": 0.72, **_LIFTED}),
        ("FF", {"jawOpen": 0.16, "mouthPucker": 0.14, "mouthRollLower": 0.72, **_LIFTED}),
    ],
)
def test_p_has_no_part_in_other_narrow_mouths(viseme, pose):
    """The bundled model's w, oo and f, in two of its styles."""
    weights = weights_of(as_visemes(held(**pose), VISEME_SETS["OCULUS"]))
    assert max(weights, key=weights.get) == viseme and weights[viseme] > 0.4
    assert weights["PP"] < 0.5 * weights[viseme]


def test_p_has_no_part_in_an_open_mouth(spoken):
    animated = as_visemes(spoken, VISEME_SETS["OCULUS"])
    pressed_T = animated.weights_TK[:, animated.channels.index("PP")]
    opening_T = measured(spoken)[:, OPENING]
    assert pressed_T[opening_T > 5].mean() < 0.25 < 0.7 < pressed_T[opening_T < 0].mean()


@pytest.mark.parametrize(
    ("viseme", "pose"),
    [
        ("aa", {"jawOpen": 0.6}),
        ("U", {"mouthPucker": 0.8, "jawOpen": 0.08, "mouthFunnel": 0.25}),
        ("I", {"jawOpen": 0.1, "mouthSmileLeft": 0.4, "mouthSmileRight": 0.4, "mouthLowerDownLeft": 0.2}),
    ],
)
def test_vowels(viseme, pose):
    weights = weights_of(as_visemes(held(**pose), VISEME_SETS["OCULUS"]))
    assert max(weights, key=weights.get) == viseme


def test_twice_the_motion_gives_about_twice_the_weights():
    """Only nearly, because a narrow opening counts more than a wide one."""
    once = weights_of(as_visemes(held(jawOpen=0.25), VISEME_SETS["VRM"]))
    twice = weights_of(as_visemes(held(jawOpen=0.5), VISEME_SETS["VRM"]))
    assert sum(twice.values()) == pytest.approx(2 * sum(once.values()), rel=0.15)


def test_only_the_visemes_that_the_face_has():
    animated = as_visemes(babble(), VISEME_SETS["OCULUS"], ("aa", "U", "sil"))
    assert animated.channels == ("aa", "U", "sil")
    assert animated.weights_TK[:, 0].max() > 0.4
    with pytest.raises(UserError, match="D is not one of the Oculus visemes"):
        as_visemes(babble(), VISEME_SETS["OCULUS"], ("D",))


def test_other_channels_are_refused():
    motion = Motion(weights_TK=np.zeros((3, 2)), channels=("key_00", "bias"), fps=30)
    with pytest.raises(UserError, match=r"2 channels \(key_00, bias …\) are not ARKit's"):
        as_visemes(motion, VISEME_SETS["VRM"])


def test_tables_speak_of_arkits_channels():
    assert set(MEASURES) <= set(ARKIT_CHANNELS)
    for visemes in VISEME_SETS.values():
        assert set(visemes.by_tongue) <= set(visemes.names)
        assert all(set(weights) <= set(MEASURES) for weights in visemes.weights.values())


def test_one_frame_and_none():
    assert as_visemes(held(1, jawOpen=0.5), VISEME_SETS["VRM"]).weights_TK.shape == (1, 5)
    assert as_visemes(held(0), VISEME_SETS["VRM"]).weights_TK.shape == (0, 5)
