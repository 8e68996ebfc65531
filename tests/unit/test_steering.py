# SPDX-License-Identifier: GPL-3.0-or-later
"""Forced phones and directions: the mouth does what the track says, there and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wav2sem_blender.assets import DEFAULT_MODEL, DEMO_SPEECH
from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline import Motion, SpeechAnimator
from wav2sem_blender.pipeline.checkpoint import ModelFolder
from wav2sem_blender.pipeline.convolution import Convolution
from wav2sem_blender.pipeline.forced_phones import REACH, PhoneReader, covered, phone_shares, spoken
from wav2sem_blender.pipeline.phones import PHONES, Phones
from wav2sem_blender.pipeline.steering import FADE_S, Steering
from wav2sem_blender.pipeline.visemes import MEASURE_NAMES, measured
from wav2sem_blender.pipeline.words.track import Direction, Phone, Track

pytest.importorskip("soundfile")
NATURAL = np.eye(4, dtype=np.float32)[0]
CLOSED_MM = 0.3


@pytest.fixture(scope="module")
def animator() -> SpeechAnimator:
    return SpeechAnimator.load("default", engine="onnx")


@pytest.fixture(scope="module")
def heard(animator) -> Motion:
    """The demo sentence as it was heard."""
    return animator.animate_file(DEMO_SPEECH)


@pytest.fixture(scope="module")
def steering() -> Steering:
    return Steering(ModelFolder.open(DEFAULT_MODEL))


def steered(steering: Steering, heard: Motion, *phones: Phone, directions: tuple[Direction, ...] = ()) -> Motion:
    track = Track(phones=phones, directions=directions)
    return replace(heard, weights_TK=steering.weights(heard.memory_RM, heard.phones, track, NATURAL))


def measure(motion: Motion, name: str) -> np.ndarray:
    return measured(motion)[:, MEASURE_NAMES.index(name)]


def at(motion: Motion, start_s: float, end_s: float) -> slice:
    return slice(round(start_s * motion.fps), round(end_s * motion.fps) + 1)


def vowels(motion: Motion, *names: str) -> list[tuple[float, float]]:
    spans = [(s.start_s, s.end_s) for s in motion.phones.spans() if s.name in names and s.end_s - s.start_s > 0.06]
    assert spans
    return spans


class TestForcedPhones:
    @pytest.mark.parametrize("start_s", np.arange(0.5, 5.5, 0.37).tolist())
    @pytest.mark.parametrize("duration_s", [0.02, 0.06, 0.12])
    def test_a_forced_p_closes_the_lips_anywhere(self, steering, heard, start_s, duration_s):
        motion = steered(steering, heard, Phone("P", start_s, start_s + duration_s))
        assert measure(motion, "opening")[at(motion, start_s, start_s + duration_s)].min() < CLOSED_MM

    def test_a_forced_ah_opens_closed_lips(self, steering, heard):
        closed = vowels(heard, "P", "B", "M")
        before = measure(heard, "opening")
        for start_s, end_s in closed:
            motion = steered(steering, heard, Phone("AA", start_s - 0.05, end_s + 0.05))
            inside = at(motion, start_s, end_s)
            assert measure(motion, "opening")[inside].max() > before[inside].max() + 2.0

    def test_oo_over_ee_narrows_the_mouth(self, steering, heard):
        narrower = []
        for start_s, end_s in vowels(heard, "IY", "IH", "EY"):
            motion = steered(steering, heard, Phone("UW", start_s, end_s))
            middle = round((start_s + end_s) / 2 * motion.fps)
            narrower.append(measure(heard, "width")[middle] - measure(motion, "width")[middle])
        assert np.mean(narrower) > 2.0

    def test_what_was_heard_changes_little_if_it_is_forced(self, steering, heard):
        spans = [s for s in heard.phones.spans() if s.name != "SIL"]
        motion = steered(steering, heard, *(Phone(s.name, max(0.0, s.start_s), s.end_s) for s in spans))
        assert np.corrcoef(measure(motion, "opening"), measure(heard, "opening"))[0, 1] > 0.8

    def test_a_track_that_forces_nothing_changes_nothing(self, steering, heard):
        spans = [Phone("AA", 1.0, 1.5, forced=False)]
        np.testing.assert_allclose(steered(steering, heard, *spans).weights_TK, heard.weights_TK, atol=0.02)

    def test_a_phone_beyond_the_sound_changes_nothing(self, steering, heard):
        end_s = heard.duration_s
        motion = steered(steering, heard, Phone("AA", end_s + 5, end_s + 6))
        np.testing.assert_array_equal(motion.weights_TK, steered(steering, heard).weights_TK)


class TestEdits:
    def test_beyond_the_fade_nothing_changes(self, steering, heard):
        span_s = (2.0, 2.1)
        track = Track(phones=(Phone("P", *span_s),))
        before_TK = heard.weights_TK
        first, part_TK = steering.changed(heard.memory_RM, heard.phones, track, NATURAL, before_TK, span_s)
        assert first >= (span_s[0] - FADE_S) * heard.fps - 1
        assert first + len(part_TK) <= (span_s[1] + FADE_S) * heard.fps + 3
        np.testing.assert_allclose(part_TK[[0, -1]], before_TK[[first, first + len(part_TK) - 1]], atol=0.02)
        edited = replace(heard, weights_TK=part_TK)
        assert measure(edited, "opening").min() < CLOSED_MM

    def test_the_span_is_as_in_the_whole(self, steering, heard):
        span_s = (4.5, 4.8)
        track = Track(phones=(Phone("UW", *span_s),))
        first, part_TK = steering.changed(heard.memory_RM, heard.phones, track, NATURAL, heard.weights_TK, span_s)
        whole_TK = steering.weights(heard.memory_RM, heard.phones, track, NATURAL)
        inside = slice(round(span_s[0] * heard.fps), round(span_s[1] * heard.fps))
        offset = slice(inside.start - first, inside.stop - first)
        np.testing.assert_allclose(part_TK[offset], whole_TK[inside], atol=0.1)

    def test_an_edit_beyond_the_sound_is_empty(self, steering, heard):
        first, part_TK = steering.changed(heard.memory_RM, heard.phones, Track(), NATURAL, heard.weights_TK, (99, 100))
        assert first == 0 and len(part_TK) == 0


class TestDirections:
    def directed(self, steering: Steering, heard: Motion, name: str, value: float | None) -> Motion:
        return steered(steering, heard, directions=(Direction(name, 2.0, 3.0, value),))

    def test_rest(self, steering, heard):
        motion = self.directed(steering, heard, "rest", None)
        assert np.abs(motion.weights_TK[at(heard, 2.0, 3.0)]).max() < 1e-6
        np.testing.assert_array_equal(
            motion.weights_TK[: at(heard, 1.8, 3).start], steered(steering, heard).weights_TK[: at(heard, 1.8, 3).start]
        )

    def test_closed(self, steering, heard):
        motion = self.directed(steering, heard, "closed", None)
        assert measure(motion, "opening")[at(heard, 2.0, 3.0)].max() < CLOSED_MM

    def test_strength_scales_all(self, steering, heard):
        half = self.directed(steering, heard, "strength", 0.5)
        inside = at(heard, 2.0, 3.0)
        np.testing.assert_allclose(
            half.weights_TK[inside], 0.5 * steered(steering, heard).weights_TK[inside], atol=1e-6
        )

    def test_jaw_and_lips_scale_their_own(self, steering, heard):
        inside, plain_TK = at(heard, 2.0, 3.0), steered(steering, heard).weights_TK
        for name, kept in (("jaw", "mouthPucker"), ("lips", "jawOpen"), ("lips", "mouthClose")):
            changed_TK = self.directed(steering, heard, name, 0.0).weights_TK
            column = heard.channels.index(kept)
            np.testing.assert_allclose(changed_TK[inside, column], plain_TK[inside, column], atol=1e-6)
            assert changed_TK[inside].sum() < plain_TK[inside].sum()

    def test_articulation_opens_more(self, steering, heard):
        inside = at(heard, 2.0, 3.0)
        clear, mumbled = (self.directed(steering, heard, "articulation", value) for value in (1.0, -1.0))
        assert measure(clear, "opening")[inside].std() > measure(mumbled, "opening")[inside].std()

    def test_a_curve_is_followed_over_its_span(self, steering, heard):
        inside, plain_TK = at(heard, 2.0, 3.0), steered(steering, heard).weights_TK
        curve = tuple(np.linspace(0.0, 1.0, 31).tolist())
        motion = steered(steering, heard, directions=(Direction("strength", 2.0, 3.0, None, curve),))
        share_T1 = (np.arange(inside.start, inside.stop) / heard.fps - 2.0)[:, None]
        np.testing.assert_allclose(motion.weights_TK[inside], share_T1 * plain_TK[inside], atol=1e-5)

    def test_neighbours_with_one_value_are_as_one(self, steering, heard):
        one = self.directed(steering, heard, "strength", 0.5)
        two = steered(steering, heard, directions=tuple(Direction("strength", a, a + 0.5, 0.5) for a in (2.0, 2.5)))
        np.testing.assert_allclose(two.weights_TK, one.weights_TK, atol=1e-6)

    def test_where_several_overlap_the_strongest_counts(self, steering, heard):
        strong = self.directed(steering, heard, "strength", 0.25)
        both = (Direction("strength", 2.0, 3.0, 0.25), Direction("strength", 2.2, 2.6, 0.5))
        np.testing.assert_allclose(steered(steering, heard, directions=both).weights_TK, strong.weights_TK, atol=1e-6)

    def test_unknown_directions_are_left_alone(self, steering, heard):
        motion = self.directed(steering, heard, "dance", 3.0)
        np.testing.assert_array_equal(motion.weights_TK, steered(steering, heard).weights_TK)


def test_animate_follows_a_track(animator, tmp_path):
    track = Track(phones=(Phone("P", 2.0, 2.1),))
    motion = animator.animate_file(DEMO_SPEECH, track=track)
    assert motion.track == track
    assert measure(motion, "opening")[at(motion, 2.0, 2.1)].min() < CLOSED_MM
    motion.save(tmp_path / "m.npz")
    loaded = Motion.load(tmp_path / "m.npz")
    assert loaded.track == track
    np.testing.assert_array_equal(loaded.memory_RM, motion.memory_RM)


def test_animate_asks_for_a_track_of_what_was_heard(animator):
    asked = []

    def follow(phones):
        asked.append(phones)
        return Track()

    motion = animator.animate_file(DEMO_SPEECH, track=follow)
    assert len(asked) == 1 and asked[0].spans() == motion.phones.spans()


def test_another_model_says_that_it_follows_none():
    folder = ModelFolder.open(DEFAULT_MODEL)
    folder = replace(folder, config=replace(folder.config, steerable=False))
    with pytest.raises(UserError, match="does not follow a track"):
        Steering(folder)


def test_shares_of_phones_fill_their_frames():
    shares = phone_shares([("AA", 0.1, 0.2)], -2, 10, 30)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(shares[:, PHONES.index("AA")].sum(), 3, atol=1e-5)  # 0.1 s at 30 frames a second
    np.testing.assert_allclose(covered([(0.1, 0.2)], 10, 30), shares[2:, PHONES.index("AA")], atol=1e-6)


def test_arrays_compute_what_torch_does():
    torch = pytest.importorskip("torch")
    from wav2sem_blender.pipeline.nn.forced_phones import PhoneReader as Network

    torch.manual_seed(0)
    network = Network(len(PHONES), 64).eval()
    reader = PhoneReader({name: value.numpy() for name, value in network.state_dict().items()})
    shares = np.random.default_rng(0).random((50, len(PHONES)), np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(shares)[None])[0].numpy()
    assert expected.shape == (50 - 2 * REACH, 64)
    np.testing.assert_allclose(reader.memory(shares), expected, atol=1e-5)


def test_a_convolution_without_enough_frames_is_empty():
    assert Convolution(np.zeros((3, 2, 5), np.float32), np.zeros(3, np.float32))(np.zeros((4, 2))).shape == (0, 3)


def test_what_is_spoken_is_what_was_heard_with_the_forced_phones_in_its_place():
    heard_LP = np.zeros((80, len(PHONES)), np.float32)
    heard_LP[:, PHONES.index("S")] = 0.75
    heard_LP[:, PHONES.index("Z")] = 0.25
    phones = Phones(posteriors_LP=heard_LP)
    track = (Phone("M", 0.1, 0.2), Phone("AE", 0.2, 0.4), Phone("P", 0.6, 0.8, forced=False), Phone("T", 5.0, 6.0))
    mixed = spoken(phones, track)
    times_L = mixed.first_s + np.arange(80) / mixed.rate_hz
    np.testing.assert_allclose(mixed.posteriors_LP.sum(1), 1, atol=2e-3)
    outside_L = (times_L < 0.08) | (times_L > 0.42)
    np.testing.assert_array_equal(mixed.posteriors_LP[outside_L], phones.posteriors_LP[outside_L])
    inside_L = (times_L > 0.12) & (times_L < 0.38)
    assert (mixed.posteriors_LP[inside_L][:, PHONES.index("S")] == 0).all()
    assert np.interp(0.2, times_L, mixed.posteriors_LP[:, PHONES.index("M")]) == pytest.approx(0.5, abs=0.1)
    assert spoken(phones, ()) is phones and spoken(phones, track[2:3]) is phones
