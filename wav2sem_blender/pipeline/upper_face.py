# SPDX-License-Identifier: GPL-3.0-or-later
"""Blinks, brows, eye darts and head sway for speech; random, but reproducible from recording and seed.

Directions of a track (`words/track.py`) change brows and head in their span alone: above 0, brows rise and the head
nods on the stressed syllables there; below 0 both move less; one with a curve is followed as it is.

Speech says little about the upper half of a face, so nothing here is learnt: the timing follows measurements of people,
and the seed selects one of many performances. Each feature has its own random generator, so changing one leaves the
others alone; amounts change the size of a movement, not its time.

Sources:
    Blink rates 17 / min at rest, 26 in conversation, 4.5 reading: Bentivoglio et al., Movement Disorders 12, 1997.
    Blinks gather in a speaker's pauses: Nakano & Kitazawa, Experimental Brain Research 205, 2010.
    Lids fall about twice as fast as they rise: Evinger, Manning & Sibony, Invest. Ophthalmol. Vis. Sci. 32, 1991.
    Brows rise ahead of the accent: Flecha-García, Speech Communication 52, 2010; with the pitch: Cavé et al. 1996.
    Saccades last about 21 ms + 2.2 ms / degree: Carpenter, "Movements of the Eyes", 1988.
    Heads move slowly, and more while speaking: Hadar et al., Human Movement Science 2, 1983; with pitch and loudness:
    Munhall et al., Psychological Science 15, 2004.
    Shape of a blink: medians of 106 blinks of one actor by ARKit at 30 Hz (captures of A. Donciu-Julin,
    github.com/alexdjulin/LiveLinkFace-CSV-Retarget-For-Motionbuilder, MIT) and of 1,801 blinks of GRID's speaker 1 on
    film (The Grid Audio-Visual Speech Corpus, Cooke et al. 2006, CC-BY-4.0). The lids are closed by more than half for
    0.13 and 0.16 s; they close within 0.1 s, and open fast at first, with a tail of 0.2 s and more; ours lie between.
    Both eyes move together. Squint and brows move by 0.06 of a blink at most. ARKit's eyes look down by 0.19 of it;
    that is left out: our lids meet without it, and with it those of the demo head would cross by 0.9 mm.
All other numbers are our choice.

Shapes: T animation frames, K channels, P hops, N events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import dist

import numpy as np

from ..errors import UserError
from .motion import Motion
from .mouth import directed, held
from .prosody import Prosody
from .words.track import Direction

BLINK_CHANNELS = ("eyeBlinkLeft", "eyeBlinkRight")
BROW_CHANNELS = ("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight")
GAZE_CHANNELS = tuple(f"eyeLook{way}{side}" for side in ("Left", "Right") for way in ("Down", "In", "Out", "Up"))
UPPER_FACE_CHANNELS = (*BLINK_CHANNELS, *GAZE_CHANNELS, *BROW_CHANNELS)

MAX_BLINKS_PER_MINUTE = 60.0
MAX_AMOUNT = 3.0

_REST_TO_SPEAKING = 17 / 26  # blink rates
_INTERVAL_SIGMA = 0.5  # of the logarithm
_MIN_INTERVAL_S = 0.5
_PAUSE_PULL = 0.75  # chance that a blink moves to a pause near its time,
_PAUSE_REACH = 0.35  # if one begins within this part of the interval
_CLOSING_S, _OPENING_S = 0.09, 0.22  # of the lids, on average
STRESSED = 0.4  # prominence of syllables that brows may rise on
_HUSH_S = 0.2  # other movements of the brows end so long before they rise as directed
_APART_S = 0.7  # between directed movements of one direction
_STILL_FADE_S = 0.25
_HIGHEST_BROWS = 0.46  # of the strongest stress, and of a direction of 1
_NOD_DEG = 2.5  # of a direction of 1
GAZE_DEG = {"In": 30.0, "Out": 30.0, "Up": 20.0, "Down": 25.0}  # rotation of the eyeball at weight 1
_SWAY_DEG = {"yaw": 1.5, "pitch": 1.15, "roll": 0.8}  # root mean square during speech; in GRID speaker 1's proportions
_SWAY_HZ = (0.08, 0.7)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How lively the upper face is.

    Attributes:
        seed: Selects one of many performances of the same speech.
        blinks_per_minute: Blink rate during speech; in silence it is two thirds of that. 0 is off.
        brows: Amount of brow movement; 0 is off, 1 is small and usual.
        eye_darts: Amount of eye movement; 0 is off, 1 is a few degrees.
        head_sway: Amount of head movement; 0 is off, 1 is a few degrees.

    Raises:
        UserError: A value is out of its range.
    """

    seed: int = 0
    blinks_per_minute: float = 18.0
    brows: float = 1.0
    eye_darts: float = 1.0
    head_sway: float = 0.0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError("The seed {seed} is negative; choose 0 or more.", seed=self.seed)
        limits = {"blinks_per_minute": MAX_BLINKS_PER_MINUTE}
        for name in ("blinks_per_minute", "brows", "eye_darts", "head_sway"):
            value, limit = getattr(self, name), limits.get(name, MAX_AMOUNT)
            if not 0 <= value <= limit:
                raise UserError(
                    "{setting} is {value}; choose 0 to {limit:g}.",
                    setting=name.replace("_", " ").capitalize(),
                    value=value,
                    limit=limit,
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class UpperFace:
    """A performance of the upper face, at rest on its first and last frame.

    Attributes:
        motion: Weights 0..1 of ARKit's channels for lids, brows and gaze, without those of features that are off.
        head_deg_T3: Yaw (to the character's left), pitch (up) and roll (to the character's left shoulder) in degrees.
    """

    motion: Motion
    head_deg_T3: np.ndarray


class Performance:
    """The curves of one recording, which directions change."""

    def __init__(self, prosody: Prosody, settings: Settings, fps: float, n_frames: int | None = None) -> None:
        """Make the curves without directions.

        Args:
            prosody: The recording's prosody.
            settings: How lively the face is.
            fps: Frames per second of the curves.
            n_frames: Number of frames, such as that of the mouth's curves; by default the recording's length.

        Raises:
            UserError: The frame rate is impossible.
        """
        if not (np.isfinite(fps) and fps > 0):
            raise UserError("The frame rate {fps} is impossible; it must be a finite number above 0.", fps=fps)
        self._settings = settings
        self._clock = clock = _Clock(fps=fps, n_frames=n_frames or max(1, round(prosody.duration_s * fps)))
        self._syllables = prosody.stresses()
        blinks, brows, gaze, sway = (np.random.default_rng([settings.seed, feature]) for feature in range(4))
        self._curves: dict[str, np.ndarray] = {}
        if settings.blinks_per_minute:
            self._curves |= _blinks(prosody, settings.blinks_per_minute, clock, blinks)
        if settings.eye_darts:
            self._curves |= _darts(settings.eye_darts, clock, gaze)
        if settings.brows:
            self._curves |= _brows(self._syllables, settings.brows, clock, brows)
        self._drift_deg_T3 = np.zeros((clock.n_frames, 3), np.float32)
        self._nods_T = np.zeros(clock.n_frames)
        if settings.head_sway:
            self._drift_deg_T3, self._nods_T = _sway(prosody, self._syllables, clock, sway)

    def directed(self, directions: Sequence[Direction] = ()) -> UpperFace:
        """The performance with these directions, in seconds from the recording's beginning."""
        curves = self._curves | (self._directed_brows(directions) if self._settings.brows else {})
        channels = tuple(name for name in UPPER_FACE_CHANNELS if name in curves)
        weights_TK = np.zeros((self._clock.n_frames, len(channels)), np.float32)
        for k, name in enumerate(channels):
            weights_TK[:, k] = curves[name]
        return UpperFace(
            motion=Motion(weights_TK=weights_TK, channels=channels, fps=self._clock.fps),
            head_deg_T3=self._directed_head(directions),
        )

    def _directed_brows(self, directions: Sequence[Direction]) -> dict[str, np.ndarray]:
        wanted = self._wanted("brows", directions)
        clock, raised_T = self._clock, _HIGHEST_BROWS * self._settings.brows * wanted.posed_T
        raised = {name: part * raised_T for name, part in (("Inner", 1.0), ("Left", 0.8), ("Right", 0.8))}
        hushed = [wanted.less_T]
        for time_s, amount in wanted.syllables:
            random = np.random.default_rng([self._settings.seed, 4, round(1000 * time_s)])
            rise, hold, fall, strength, left, right = random.random(6)
            rise_s = min(0.10 + 0.10 * rise, time_s)
            fall_s = min(0.20 + 0.25 * fall, clock.end_s - time_s)
            hold_s = max(0.0, min(0.04 + 0.12 * hold, clock.end_s - time_s - fall_s))
            if min(rise_s, fall_s) <= 0:
                continue
            height = amount * self._settings.brows * _HIGHEST_BROWS * (0.9 + 0.2 * strength)
            parts = {"Inner": 1.0, "Left": 0.7 + 0.1 * left, "Right": 0.7 + 0.1 * right}
            for name, part in parts.items():
                clock.add_event(raised[name], time_s - rise_s, rise_s, hold_s, fall_s, height * part)
            span_s = (time_s - rise_s - _HUSH_S, time_s + hold_s + fall_s, 1.0)
            hushed.append(held(clock.n_frames, [span_s], _HUSH_S, _HUSH_S, clock.fps))
        left_T = 1 - np.max(hushed, axis=0)
        curves = {name: self._curves[name] * left_T for name in BROW_CHANNELS}
        for name, channel in (("Inner", "browInnerUp"), ("Left", "browOuterUpLeft"), ("Right", "browOuterUpRight")):
            curves[channel] = np.minimum(np.maximum(curves[channel], raised[name]), 1.0)
        return curves

    def _directed_head(self, directions: Sequence[Direction]) -> np.ndarray:
        """(T, 3) in degrees; at rest on the first and the last frame."""
        clock, amount = self._clock, self._settings.head_sway
        if not amount:
            return self._drift_deg_T3
        wanted = self._wanted("head", directions)
        nods_T = np.maximum(self._nods_T * (1 - wanted.less_T), _NOD_DEG * wanted.posed_T)
        for time_s, depth in wanted.syllables:
            clock.add_event(nods_T, time_s - 0.2, 0.2, 0.0, 0.4, _NOD_DEG * depth)
        head_deg_T3 = self._drift_deg_T3 * (1 - wanted.less_T)[:, None].astype(np.float32)
        head_deg_T3[:, 1] -= nods_T
        fade_s = max(1e-6, min(0.5, clock.end_s / 3))
        fade_T = _smooth(clock.times_s / fade_s) * _smooth((clock.end_s - clock.times_s) / fade_s)
        return (amount * fade_T)[:, None].astype(np.float32) * head_deg_T3

    def _wanted(self, name: str, directions: Sequence[Direction]) -> _Wanted:
        clock, own = self._clock, [direction for direction in directions if direction.name == name]
        syllables = [
            (time_s, direction.value)
            for direction in own
            if not direction.curve and direction.value is not None and direction.value > 0
            for time_s in self._stressed_in(direction)
        ]
        amount_T = directed(own, name, clock.n_frames, clock.fps, _STILL_FADE_S)
        posed = [direction for direction in own if direction.curve]
        posed_T = directed(posed, name, clock.n_frames, clock.fps, _STILL_FADE_S)
        return _Wanted(less_T=-amount_T.clip(-1, 0), syllables=tuple(syllables), posed_T=posed_T.clip(0))

    def _stressed_in(self, direction: Direction) -> list[float]:
        """The strongest syllable in a direction, or its middle; and the stressed ones that are not near it."""
        times_N, prominence_N = self._syllables
        inside = np.flatnonzero((times_N >= direction.start_s) & (times_N <= direction.end_s))
        found: list[float] = []
        for n in sorted(inside.tolist(), key=lambda n: -prominence_N[n]):
            time_s = float(times_N[n])
            if not found or prominence_N[n] > STRESSED and min(abs(time_s - at_s) for at_s in found) >= _APART_S:
                found.append(time_s)
        return found or [(direction.start_s + direction.end_s) / 2]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Wanted:
    """What directions want of brows or head: how much less (T,) 0..1, times and amounts of movements, a curve (T,)."""

    less_T: np.ndarray
    syllables: tuple[tuple[float, float], ...]
    posed_T: np.ndarray


def perform(
    prosody: Prosody,
    settings: Settings,
    fps: float,
    n_frames: int | None = None,
    directions: Sequence[Direction] = (),
) -> UpperFace:
    """Make the curves of one recording; arguments and errors as of `Performance`."""
    return Performance(prosody, settings, fps, n_frames).directed(directions)


def _smooth(x: np.ndarray) -> np.ndarray:
    """Smoothstep: 0 below 0, 1 above 1."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def _opening(x: np.ndarray) -> np.ndarray:
    """How far opening lids have come, from 0 to 1: fast at first, with a long tail."""
    x = np.clip(x, 0.0, 1.0)
    return 1 - (1 - x) ** 3 * (1 + 3 * x)


@dataclass(frozen=True, kw_only=True)
class _Clock:
    """The frames of the curves."""

    fps: float
    n_frames: int

    @property
    def times_s(self) -> np.ndarray:
        return np.arange(self.n_frames) / self.fps

    @property
    def end_s(self) -> float:
        """Time of the last frame."""
        return (self.n_frames - 1) / self.fps

    def on_frame(self, time_s: float) -> float:
        """The time of the nearest frame."""
        return round(time_s * self.fps) / self.fps

    def add_event(
        self,
        curve_T: np.ndarray,
        start_s: float,
        rise_s: float,
        hold_s: float,
        fall_s: float,
        height: float,
        falling: Callable[[np.ndarray], np.ndarray] = _smooth,
    ) -> None:
        """Rise smoothly from 0 to `height` and fall again; where events overlap, the higher value wins."""
        end_s = start_s + rise_s + hold_s + fall_s
        frames = np.arange(max(0, np.ceil(start_s * self.fps)), min(self.n_frames - 1, end_s * self.fps) + 1, dtype=int)
        times_s = frames / self.fps - start_s
        shape = _smooth(times_s / rise_s) * (1 - falling((times_s - rise_s - hold_s) / fall_s))
        curve_T[frames] = np.maximum(curve_T[frames], height * shape)


def _blinks(prosody: Prosody, per_minute: float, clock: _Clock, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Both lids close exactly on a frame, and open again."""
    curve_T = np.zeros(clock.n_frames)
    for time_s in _blink_times(prosody, per_minute, random):
        pace = random.uniform(0.85, 1.15)
        closing_s, opening_s = _CLOSING_S * pace, _OPENING_S * pace
        closed_s = clock.on_frame(time_s)  # between two frames the lids would not meet on any
        if closing_s < closed_s < clock.end_s - opening_s:
            clock.add_event(curve_T, closed_s - closing_s, closing_s, 0.0, opening_s, 1.0, _opening)
    return dict.fromkeys(BLINK_CHANNELS, curve_T)


def _blink_times(prosody: Prosody, per_minute: float, random: np.random.Generator) -> list[float]:
    """Blinks at log-normal intervals, moved towards the beginnings of pauses."""
    spoken_P = np.concatenate([[0.0], np.cumsum(prosody.speaking())])
    pauses_s = prosody.pauses_N2[:, 0] * prosody.hop_s
    times: list[float] = []
    # The recording begins at a random place of an interval.
    time_s = -random.uniform(0.0, 60 / per_minute)
    while time_s < prosody.duration_s:
        # The share of speech in the next mean interval sets the rate.
        first = min(max(0, int(time_s / prosody.hop_s)), len(spoken_P) - 2)
        last = min(first + 1 + int(60 / per_minute / prosody.hop_s), len(spoken_P) - 1)
        share = (spoken_P[last] - spoken_P[first]) / (last - first)
        rate = per_minute * (_REST_TO_SPEAKING + (1 - _REST_TO_SPEAKING) * share)
        interval_s = 60 / rate * random.lognormal(-(_INTERVAL_SIGMA**2) / 2, _INTERVAL_SIGMA)
        into_pause_s, is_pulled = random.uniform(0.0, 0.2), random.random() < _PAUSE_PULL
        next_s = time_s + interval_s
        if is_pulled and len(pauses_s):
            nearest_s = pauses_s[np.argmin(np.abs(pauses_s + into_pause_s - next_s))] + into_pause_s
            if abs(nearest_s - next_s) < _PAUSE_REACH * interval_s:
                next_s = nearest_s
        time_s = max(next_s, time_s + _MIN_INTERVAL_S)
        if time_s > 0:
            times.append(float(time_s))
    return times


def _brows(
    syllables: tuple[np.ndarray, np.ndarray], amount: float, clock: _Clock, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Brows rise, or sometimes knit, on some stressed syllables, with their peak on the syllable."""
    curves = {name: np.zeros(clock.n_frames) for name in BROW_CHANNELS}
    free_s = 0.0
    for time_s, prominence, drawn in _stressed(syllables, random, n_numbers=8):
        chance, kind, strength, balance, rise, hold, fall, rest = drawn
        rise_s, hold_s, fall_s = 0.10 + 0.10 * rise, 0.04 + 0.12 * hold, 0.20 + 0.25 * fall
        start_s, end_s = time_s - rise_s, time_s + hold_s + fall_s
        emphasis = min(1.0, (prominence - STRESSED) / 1.2)
        if start_s < free_s or end_s >= clock.end_s or chance > 0.45 + 0.5 * emphasis:
            continue
        height = (0.16 + (_HIGHEST_BROWS - 0.16) * emphasis) * (0.8 + 0.4 * strength)
        left, right = (1.0, 0.75 + 0.25 * balance) if balance < 0.5 else (0.75 + 0.25 * (1 - balance), 1.0)
        if kind < 0.70:
            parts = {"browInnerUp": 1.0, "browOuterUpLeft": 0.8 * left, "browOuterUpRight": 0.8 * right}
        elif kind < 0.88:
            parts = {"browInnerUp": 1.0}
        else:
            parts = {"browDownLeft": 0.8 * left, "browDownRight": 0.8 * right}
        for name, part in parts.items():
            clock.add_event(curves[name], start_s, rise_s, hold_s, fall_s, min(1.0, amount * height * part))
        free_s = end_s + 0.1 + 0.5 * rest
    return curves


def _stressed(
    syllables: tuple[np.ndarray, np.ndarray], random: np.random.Generator, n_numbers: int
) -> Iterator[tuple[float, float, tuple[float, ...]]]:
    """Time, prominence and random numbers 0..1 of every stressed syllable."""
    times_N, prominence_N = syllables
    drawn = random.random((len(times_N), n_numbers))
    for n in np.flatnonzero(prominence_N > STRESSED):
        yield float(times_N[n]), float(prominence_N[n]), tuple(drawn[n].tolist())


def _darts(amount: float, clock: _Clock, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Both eyes jump together, rest, and often return to the listener."""
    knots_s, knots_deg, time_s, gaze_deg = [0.0], [(0.0, 0.0)], 0.0, (0.0, 0.0)
    while True:
        time_s += min(0.3 + random.exponential(0.45), 1.5)
        is_home = random.random() < 0.4
        yaw_deg, pitch_deg = random.normal(0.0, 2.6), random.normal(0.0, 1.2)
        next_deg = (0.0, 0.0) if is_home else (min(max(yaw_deg, -6.0), 6.0), min(max(pitch_deg, -3.0), 3.0))
        jump_s = min(0.021 + 0.0022 * dist(gaze_deg, next_deg), 0.05)
        if time_s + jump_s + 0.3 > clock.end_s:
            break
        knots_s += [time_s, time_s + jump_s]
        knots_deg += [gaze_deg, next_deg]
        time_s, gaze_deg = time_s + jump_s, next_deg
    last_s = max(knots_s[-1], clock.end_s - 0.05)
    knots_s += [last_s, max(last_s, clock.end_s)]
    knots_deg += [gaze_deg, (0.0, 0.0)]
    left_T, up_T = (amount * np.interp(clock.times_s, knots_s, axis) for axis in np.transpose(knots_deg))
    left_T[-1] = up_T[-1] = 0.0
    ways = {"Up": up_T, "Down": -up_T}
    sides = {"Left": ways | {"Out": left_T, "In": -left_T}, "Right": ways | {"Out": -left_T, "In": left_T}}
    return {
        f"eyeLook{way}{side}": np.clip(turn_T / GAZE_DEG[way], 0.0, 1.0)
        for side, turns in sides.items()
        for way, turn_T in turns.items()
    }


def _sway(
    prosody: Prosody, syllables: tuple[np.ndarray, np.ndarray], clock: _Clock, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Slow drift on all axes, larger during speech, (T, 3), and nods on some stresses, (T,); in degrees."""
    drift_deg_T3, activity_T = np.zeros((clock.n_frames, 3), np.float32), _activity(prosody, clock)
    for axis, rms_deg in enumerate(_SWAY_DEG.values()):
        drift_deg_T3[:, axis] = rms_deg * activity_T * _drift(clock.times_s, random)
    nods_T = np.zeros(clock.n_frames)
    for time_s, _, (chance, rise, fall, depth) in _stressed(syllables, random, n_numbers=4):
        if chance < 0.5:
            clock.add_event(
                nods_T, time_s - 0.15 - 0.1 * rise, 0.15 + 0.1 * rise, 0.0, 0.3 + 0.2 * fall, 1 + 1.5 * depth
            )
    return drift_deg_T3, nods_T


def _activity(prosody: Prosody, clock: _Clock) -> np.ndarray:
    """1 during speech, 1/3 in silence, smoothed over a second; (T,)."""
    reach = max(1, round(0.5 / prosody.hop_s))
    total_P = np.concatenate([[0.0], np.cumsum(prosody.speaking())])
    hops_P = np.arange(len(total_P) - 1)
    first_P, last_P = np.maximum(hops_P - reach, 0), np.minimum(hops_P + reach, len(total_P) - 1)
    mean_P = (total_P[last_P] - total_P[first_P]) / (last_P - first_P)
    return np.interp(clock.times_s, hops_P * prosody.hop_s, 1 / 3 + 2 / 3 * mean_P)


def _drift(times_s: np.ndarray, random: np.random.Generator, n_waves: int = 12) -> np.ndarray:
    """Noise within `_SWAY_HZ`, stronger at low frequencies, with root mean square 1; (T,)."""
    low, high = np.log(_SWAY_HZ)
    frequencies_hz = np.exp(low + (high - low) * (np.arange(n_waves) + random.random(n_waves)) / n_waves)
    heights = 1 / np.sqrt(frequencies_hz)
    heights *= np.sqrt(2 / np.sum(np.square(heights)))
    drift_T = np.zeros(len(times_s))
    for frequency_hz, height, phase in zip(frequencies_hz, heights, random.uniform(0, 2 * np.pi, n_waves), strict=True):
        drift_T += height * np.sin(2 * np.pi * frequency_hz * times_s + phase)
    return drift_T
