# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taught, made of motion and phone times, in four manners.

`natural`: the motion as captured or driven. Lips meet on p, b and m, the lower lip goes to the upper teeth on f and v,
and the mouth rests in silence. Captured motion needs these corrections: the tracker leaves closed lips about 1 mm apart
and misses lips that roll in, and speakers open the mouth for breath without any sound. A model trained on it has lips
that never seal, no f, and a mouth that gapes before the first word. Errors are still measured against the uncorrected
motion.
`clear`: the same, drawn towards the full shape of every sound (`POSES`). `mumbled`: the same, smaller. `artist`: an
animator's curves, where there are any; otherwise natural. Lips are closed on p, b and m in all of them.

Every weight is in [0, 1], left and right differ only as the face did (in `clear` not at all), and `mouthClose` is at
most `jawOpen`; mixtures keep all of this.

Shapes: T animation frames, K channels, V poses, M manners.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wav2sem_blender.pipeline.mouth import ONSET_S, PRESSED_M, RELEASE_S, Mouth, close_lips, closures, held

from ..speech.phones import BILABIALS, LABIODENTALS, PHONES, Timing
from .curves import FPS, MIRRORED, SIDEWAYS, one_sided

MANNERS = ("natural", "clear", "mumbled", "artist")

SEALING_S = 0.035  # shorter, for captured motion, whose lips already close and part
MIN_PAUSE_S = 0.2
SETTLE_S, PREPARE_S = 0.12, 0.1  # a mouth settles more slowly than it prepares to speak
BREATH_S = 0.25  # filmed mouths open earlier
NEARLY_MET_M = 0.0035  # inner-lip gap; a wider one on p, b, m is an error of the alignment, not of the tracker
# f and v, chosen by eye on the basis and the demo head: the lower lip is at the upper teeth, whose edge shows.
TUCKED = {"mouthRollLower": 0.8, "mouthUpperUpLeft": 0.25, "mouthUpperUpRight": 0.25}
TUCKED_CLEARLY = {"mouthRollLower": 0.9, "mouthUpperUpLeft": 0.35, "mouthUpperUpRight": 0.35}
TUCKED_GAP_M = 0.0012  # the gap then; filmed lips are 2 to 4 mm apart on f and v, and up to 1.6 on p, b, m
AGAINST_THE_TUCK = ("mouthRollUpper", "mouthShrugLower", "mouthLowerDownLeft", "mouthLowerDownRight")
# Filmed lips are still half open when an f begins, and nearest in its second half.
TUCK_AFTER_S, TUCKING_S, UNTUCKING_S = 0.025, 0.07, 0.07
WHOLE_TUCK_S, LEAST_TUCK = 0.07, 0.6  # in a shorter f or v the lip moves less
NEARLY_TUCKED_M = 0.006  # with a far wider gap, the sound was swallowed or misaligned

# Lips are at least this far apart in sounds that round them, and in all others but labials, as a share of the clip's
# `widest` opening: an opening that is seen, beside the wide ones, tells an oo from a p.
ROUNDED_GAP, PARTED_GAP = 0.25, 0.28
NEARLY_CLOSED = frozenset("W UW UH OW OY AO R ER".split())
PARTED = frozenset(PHONES) - NEARLY_CLOSED - {*BILABIALS, *LABIODENTALS, "SIL"}
PARTING_S = 0.03

ROUNDED_SHARE, ROUNDING_S = 0.35, 0.07  # of w and oo, in driven and in clear motion

MUMBLED = {"jawOpen": 0.45, "mouthClose": 0.45}  # other channels: `MUMBLED_LIPS`
MUMBLED_LIPS = 0.55
COMPRESSED = {"mouthPress": 0.4, "mouthRollUpper": 0.15, "mouthRollLower": 0.15}  # once the lips have met
SHORTEST_POSE_S, FULL_POSE_S = 0.04, 0.10  # a sound of the first length gets half of its pose
CLEARNESS = 0.9  # share of the pose in clear motion; the rest is how the speaker moved
POSE_FLANK_S = {"round": 0.12, "rounded": 0.10, "r": 0.09, "sh": 0.09}
OTHER_FLANK_S = 0.06

# The full shape of the sounds, in weights of both sides, chosen by eye on the demo head: "" stands for Left and Right.
# The second value says how much a pose insists: one that leaves the lips free gives way to its neighbours.
POSES: Mapping[str, tuple[float, dict[str, float]]] = {
    "round": (1.0, {"mouthPucker": 0.85, "mouthFunnel": 0.05, "jawOpen": 0.16, "mouthClose": 0.15}),
    "rounded": (0.9, {"mouthPucker": 0.45, "mouthFunnel": 0.25, "jawOpen": 0.14}),
    "aw": (0.8, {"mouthPucker": 0.15, "mouthFunnel": 0.35, "jawOpen": 0.3}),
    "r": (0.7, {"mouthPucker": 0.35, "mouthFunnel": 0.2, "jawOpen": 0.06}),
    "sh": (
        0.9,
        {"mouthPucker": 0.35, "mouthFunnel": 0.45, "jawOpen": 0.03, "mouthLowerDown": 0.1, "mouthUpperUp": 0.1},
    ),
    "ee": (
        0.8,
        {"mouthSmile": 0.35, "mouthStretch": 0.3, "jawOpen": 0.07, "mouthLowerDown": 0.25, "mouthUpperUp": 0.12},
    ),
    "e": (0.7, {"mouthSmile": 0.2, "mouthStretch": 0.15, "jawOpen": 0.26, "mouthLowerDown": 0.15, "mouthUpperUp": 0.1}),
    "a": (0.8, {"mouthSmile": 0.12, "mouthStretch": 0.15, "jawOpen": 0.42, "mouthLowerDown": 0.2, "mouthUpperUp": 0.1}),
    "ah": (1.0, {"jawOpen": 0.6, "mouthLowerDown": 0.1, "mouthUpperUp": 0.05}),
    "uh": (0.6, {"jawOpen": 0.32, "mouthLowerDown": 0.05}),
    "th": (0.6, {"jawOpen": 0.14, "mouthLowerDown": 0.15, "mouthUpperUp": 0.1}),
    "l": (0.5, {"jawOpen": 0.18, "mouthLowerDown": 0.12, "mouthUpperUp": 0.05}),
    "s": (0.6, {"jawOpen": 0.03, "mouthStretch": 0.22, "mouthLowerDown": 0.3, "mouthUpperUp": 0.15}),
    "t": (0.35, {"jawOpen": 0.08, "mouthLowerDown": 0.18, "mouthUpperUp": 0.06}),
    "k": (0.25, {"jawOpen": 0.15}),
}
ROUNDED = ("W", "UW")
OPEN_POSES = ("aw", "ee", "e", "a", "ah", "uh", "l", "k")  # the jaw is open at least as far as the speaker's
POSE_OF: Mapping[str, tuple[str, ...]] = {  # diphthongs have two
    **dict.fromkeys(ROUNDED, ("round",)), "OW": ("rounded", "round"), "UH": ("rounded",), "AO": ("aw",),
    "OY": ("aw", "ee"), **dict.fromkeys(("R", "ER"), ("r",)), **dict.fromkeys(("SH", "CH", "JH", "ZH"), ("sh",)),
    **dict.fromkeys(("IY", "Y"), ("ee",)), **dict.fromkeys(("EH", "IH"), ("e",)), "EY": ("e", "ee"), "AE": ("a",),
    "AY": ("ah", "ee"), "AW": ("ah", "round"), "AA": ("ah",), "AH": ("uh",), **dict.fromkeys(("TH", "DH"), ("th",)),
    "L": ("l",), **dict.fromkeys(("S", "Z"), ("s",)), **dict.fromkeys(("T", "D", "N"), ("t",)),
    **dict.fromkeys(("K", "G", "NG", "HH"), ("k",)),
}  # fmt: skip


class PosedMouth(Mouth):
    """A mouth whose poses and sides are known."""

    def pose(self, weights: Mapping[str, float]) -> np.ndarray:
        """(K,); a name without its side means both."""
        pose_K = np.zeros(len(self.channels))
        for name, weight in weights.items():
            for side in ("", *MIRRORED):
                if name + side in self.channels:
                    pose_K[self[name + side]] = weight
        return pose_K

    def even(self, weights_TK: np.ndarray) -> np.ndarray:
        """The same with left as right, and nothing sideways."""
        even_TK = np.array(weights_TK)
        for k, name in enumerate(self.channels):
            if name in SIDEWAYS:
                even_TK[:, k] = 0
            elif name.endswith(MIRRORED[0]):
                pair = [k, self[name.replace(*MIRRORED)]]
                even_TK[:, pair] = even_TK[:, pair].mean(1, keepdims=True)
        return even_TK

    def animatable(self, weights_TK: np.ndarray) -> np.ndarray:
        """The nearest weights that an animator would make: in [0, 1], to one side at a time, and no `mouthClose` beyond
        `jawOpen`."""
        tidy_TK = one_sided(weights_TK.clip(0, 1), self.channels)
        jaw, close = self["jawOpen"], self["mouthClose"]
        tidy_TK[:, close] = np.minimum(tidy_TK[:, close], tidy_TK[:, jaw])
        return tidy_TK


def tucks(n_frames: int, phones: list[Timing]) -> np.ndarray:
    """(T,) 0..1: how far the lower lip goes to the teeth on f and v; 0 on p, b, m."""
    spans = [
        (min(start + TUCK_AFTER_S, end), end, float(np.clip((end - start) / WHOLE_TUCK_S, LEAST_TUCK, 1)))
        for phone, start, end in phones
        if phone in LABIODENTALS
    ]
    return held(n_frames, spans, TUCKING_S, UNTUCKING_S, FPS) * (
        1 - closures(n_frames, phones, SEALING_S, SEALING_S, FPS)
    )


def seal_lips(target_TK: np.ndarray, phones: list[Timing], mouth: PosedMouth) -> np.ndarray:
    """Close the gap that the tracker leaves on p, b, m."""
    gap_T = mouth.gap(target_TK)
    met_T = np.clip(2 - gap_T / NEARLY_MET_M, 0, 1)
    closed_T = closures(len(target_TK), phones, SEALING_S, SEALING_S, FPS)
    missing_T = closed_T * met_T * np.maximum(gap_T + PRESSED_M, 0)
    return np.where(missing_T[:, None] > 0, mouth.with_gap(target_TK, gap_T - missing_T), target_TK)


def tuck_lower_lip(
    target_TK: np.ndarray, phones: list[Timing], mouth: PosedMouth, tucked: Mapping[str, float] = TUCKED
) -> np.ndarray:
    """Move the lower lip in and up to the edge of the upper teeth on f and v, without changing the mouth's width.

    The lips do not meet: the final gap is `TUCKED_GAP_M`.
    """
    gap_T = mouth.gap(target_TK)
    tuck_T = tucks(len(target_TK), phones) * np.clip(2 - gap_T / NEARLY_TUCKED_M, 0, 1)
    tucked_TK = np.array(target_TK)
    for name, weight in tucked.items():
        k = mouth[name]
        tucked_TK[:, k] += tuck_T * np.maximum(weight - target_TK[:, k], 0)
    tucked_TK[:, [mouth[name] for name in AGAINST_THE_TUCK]] *= 1 - tuck_T[:, None]
    wanted_T = gap_T + tuck_T * (TUCKED_GAP_M - gap_T)
    return np.where(tuck_T[:, None] > 0, mouth.with_gap(tucked_TK, wanted_T), target_TK)


def part_lips(moving_TK: np.ndarray, phones: list[Timing], mouth: PosedMouth) -> np.ndarray:
    """Keep the lips apart in all phones that do not need closed lips, and so far apart that no p is seen.

    A tongue between the teeth, as in "the", needs room, which an average of one speaker's few words may not show.
    """
    n_frames = len(moving_TK)
    apart_T = np.zeros(n_frames)
    widest_m = mouth.widest(moving_TK)
    for share, some in ((ROUNDED_GAP, NEARLY_CLOSED), (PARTED_GAP, PARTED)):
        spans = [(start, end, share * widest_m) for phone, start, end in phones if phone in some]
        apart_T = np.maximum(apart_T, held(n_frames, spans, PARTING_S, PARTING_S, FPS))
    apart_T *= (1 - closures(n_frames, phones, SEALING_S, SEALING_S, FPS)) * (1 - tucks(n_frames, phones))
    gap_T = mouth.gap(moving_TK)
    missing_T = np.maximum(apart_T - gap_T, 0)
    return np.where(missing_T[:, None] > 0, mouth.with_gap(moving_TK, gap_T + missing_T), moving_TK)


def round_lips(moving_TK: np.ndarray, phones: list[Timing], mouth: PosedMouth) -> np.ndarray:
    """Draw w and oo towards their pose and close them to `ROUNDED_GAP`: most speakers do, the captured one not."""
    n_frames = len(moving_TK)
    spans = [(start, end, 1.0) for phone, start, end in phones if phone in ROUNDED]
    amount_T = held(n_frames, spans, ROUNDING_S, ROUNDING_S, FPS) * (
        1 - closures(n_frames, phones, ONSET_S, RELEASE_S, FPS)
    )
    share_T1 = ROUNDED_SHARE * amount_T[:, None]
    rounded_TK = moving_TK * (1 - share_T1) + mouth.pose(POSES["round"][1]) * share_T1
    gap_T = mouth.gap(rounded_TK)
    surplus_T = amount_T * np.maximum(gap_T - ROUNDED_GAP * mouth.widest(moving_TK), 0)
    return np.where(surplus_T[:, None] > 0, mouth.with_gap(rounded_TK, gap_T - surplus_T), rounded_TK)


def shown(n_frames: int, phones: list[Timing]) -> dict[str, np.ndarray]:
    """How much (T,) of every pose is seen, 0..1; together 1 at most."""
    spans: dict[str, list[tuple[float, float, float]]] = {name: [] for name in POSES}
    for phone, start, end in phones:
        poses = POSE_OF.get(phone, ())
        long = np.interp(end - start, (SHORTEST_POSE_S, FULL_POSE_S), (0.5, 1.0))
        for i, name in enumerate(poses):
            part = (end - start) / len(poses)
            spans[name].append((start + i * part, start + (i + 1) * part, float(long * POSES[name][0])))
    amount_VT = np.stack([
        held(n_frames, spans[name], *2 * (POSE_FLANK_S.get(name, OTHER_FLANK_S),), FPS) for name in POSES
    ])  # fmt: skip
    amount_VT /= np.maximum(amount_VT.sum(0), 1)
    return dict(zip(POSES, amount_VT, strict=True))


def speak_clearly(moving_TK: np.ndarray, phones: list[Timing], mouth: PosedMouth) -> np.ndarray:
    """Draw every sound towards its full shape, and press the lips together on p, b, m."""
    n_frames = len(moving_TK)
    amounts = shown(n_frames, phones)
    jaw = mouth["jawOpen"]
    clear_TK = moving_TK * (1 - CLEARNESS * sum(amounts.values())[:, None])  # type: ignore[index]
    for name, amount_T in amounts.items():
        pose_TK = np.tile(mouth.pose(POSES[name][1]), (n_frames, 1))
        if name in OPEN_POSES:
            pose_TK[:, jaw] = np.maximum(pose_TK[:, jaw], moving_TK[:, jaw] - moving_TK[:, mouth["mouthClose"]])
        clear_TK += CLEARNESS * amount_T[:, None] * pose_TK
    closed_TK = close_lips(round_lips(clear_TK, phones, mouth), phones, mouth, FPS)
    pressed_T1 = closures(n_frames, phones, SEALING_S, SEALING_S, FPS)[:, None]
    return closed_TK + pressed_T1 * np.maximum(mouth.pose(COMPRESSED) - closed_TK, 0)


def mumble(moving_TK: np.ndarray, mouth: PosedMouth) -> np.ndarray:
    """The same, smaller; the jaw more so."""
    share_K = np.array([MUMBLED.get(name, MUMBLED_LIPS) for name in mouth.channels])
    return moving_TK * share_K


def manners(
    target_TK: np.ndarray, phones: list[Timing] | None, duration_s: float, mouth: PosedMouth
) -> dict[str, np.ndarray]:
    """The motion (T, K) in every one of `MANNERS`. Without phone times nothing is corrected or made clearer."""
    target_TK = mouth.animatable(target_TK)
    if not phones:
        kept = dict.fromkeys(MANNERS, target_TK)
        return kept | {"mumbled": mumble(target_TK, mouth)}

    def finished(moving_TK: np.ndarray, tucked: Mapping[str, float] = TUCKED) -> np.ndarray:
        lips_TK = tuck_lower_lip(seal_lips(part_lips(moving_TK, phones, mouth), phones, mouth), phones, mouth, tucked)
        return mouth.animatable(rest_in_pauses(lips_TK, phones, duration_s, BREATH_S))

    natural_TK = finished(target_TK)
    return {
        "natural": natural_TK,
        "clear": finished(speak_clearly(mouth.even(target_TK), phones, mouth), TUCKED_CLEARLY),
        "mumbled": mouth.animatable(rest_in_pauses(mumble(natural_TK, mouth), phones, duration_s, BREATH_S)),
        "artist": natural_TK,
    }


def mixed(by_manner: Mapping[str, np.ndarray], manner_weights: Mapping[str, float]) -> np.ndarray:
    """The motion (T, K) between manners. Weights add up to 1."""
    assert abs(sum(manner_weights.values()) - 1) < 1e-6
    return sum(weight * by_manner[name] for name, weight in manner_weights.items())  # type: ignore[return-value]


def rest_in_pauses(
    moving_TK: np.ndarray, phones: list[Timing], duration_s: float, prepare_s: float = PREPARE_S
) -> np.ndarray:
    """Blend to the head's rest in pauses, before the first sound (up to `prepare_s` before it) and after the last."""
    times_s = np.arange(len(moving_TK)) / FPS
    sounds = [(start, end) for phone, start, end in phones if phone != "SIL"]
    edges = [0.0, *(edge for sound in sounds for edge in sound), duration_s]
    resting_T = np.zeros(len(moving_TK))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start > MIN_PAUSE_S:
            rise = np.clip((times_s - start) / SETTLE_S, 0, 1) if start else 1.0
            fall = np.clip((end - times_s) / prepare_s, 0, 1) if end < duration_s else 1.0
            inside = (times_s >= start) & (times_s <= end)
            resting_T = np.maximum(resting_T, np.minimum(rise, fall) * inside)
    return moving_TK * (1 - resting_T[:, None])
