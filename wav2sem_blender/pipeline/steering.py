# SPDX-License-Identifier: GPL-3.0-or-later
"""The mouth follows a track: what was heard, with the phones and directions that the user wants.

NumPy only, so that Blender can make an edited span anew without the worker. What is needed of the recording is the
decoder's memory, which `Motion.memory` keeps.

Shapes: R = T memory and animation frames, M memory width, N styles, K channels, P phones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

import numpy as np

from ..errors import UserError
from .checkpoint import ModelFolder
from .forced_phones import REACH, PhoneReader, covered, forced_shares
from .hosts.protocol import Decoder
from .mouth import Mouth, Timing, close_lips, directed, held
from .phones import BILABIALS, PHONES, SILENCE, Phones
from .visemes import MEASURE_NAMES, MEASURES
from .words.track import Track

FADE_S = 0.2
"""How far an edit reaches beyond its span; the change is blended out there."""
WARM_UP_S = 4.0
"""Decoding begins so long before an edited span; the decoder reads its own past."""
DIRECTION_FADE_S = 0.08
ROUNDED = ("W", "UW")
ROUNDED_ARTICULATION = 0.4
"""Of forced w and oo: the filmed speaker hardly rounds his lips, and who forces an oo wants to see one."""
SCALED = {"strength": (), "jaw": ("jaw", "mouthClose"), "lips": ("mouth", "tongue")}
"""Directions that scale channels: the beginnings of their names, or all. `mouthClose` goes with the jaw."""

Decode = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Steering:
    """A face model behind its ear. Read `weights` first."""

    def __init__(self, folder: ModelFolder, decoder: Decoder | None = None) -> None:
        """`decoder` is the model's, if it is loaded already.

        Raises:
            UserError: Phones cannot be forced in this model.
        """
        config = folder.config
        if not config.steerable:
            raise UserError("{model}: this model does not follow a track; use the bundled one", model=config.name)
        self._host, self._articulation, self._styles = config.host, config.articulation, config.styles
        self._decoder = decoder or config.host.decoder(folder.tensors("decoder."))
        self._reader = PhoneReader(folder.tensors("forced."))
        self.fps = float(config.host.grid.fps)
        opening = MEASURE_NAMES.index("opening")
        self._channels = config.channels
        gap_K = np.array([MEASURES[name][opening] / 1000 if name in MEASURES else 0.0 for name in config.channels])
        self._mouth = Mouth(channels=config.channels, gap_K=gap_K)

    def weights(self, memory_RM: np.ndarray, phones: Phones, track: Track, style_N: np.ndarray) -> np.ndarray:
        """The motion (T, K) of a whole recording.

        Args:
            memory_RM: What was heard.
            phones: What was heard, for the phones beside the forced ones.
            track: Its forced phones replace what was heard; its directions change the motion.
            style_N: Of the speaker.
        """
        memory_RM = self.memory(memory_RM, phones, track)
        return self._finished(memory_RM, track, style_N, 0)

    def changed(
        self,
        memory_RM: np.ndarray,
        phones: Phones,
        track: Track,
        style_N: np.ndarray,
        weights_TK: np.ndarray,
        span_s: tuple[float, float],
    ) -> tuple[int, np.ndarray]:
        """The frames around an edited span: the first of them, and their motion (t, K).

        Args:
            memory_RM, phones, track, style_N: As for `weights`, with the edited track.
            weights_TK: The motion before the edit; beyond `FADE_S` around the span it stays.
            span_s: Start and end of what was edited.
        """
        n_frames = len(memory_RM)
        first = int(max(0, np.floor((span_s[0] - FADE_S) * self.fps)))
        last = int(min(n_frames, np.ceil((span_s[1] + FADE_S) * self.fps) + 1))
        if first >= last:
            return 0, weights_TK[:0]
        # The decoder counts frames in periods, and a frame's memory is read with its neighbours.
        second = round(self.fps)
        begin = max(0, int(first - WARM_UP_S * self.fps)) // second * second
        end = min(n_frames, last + second)
        part_RM = self.memory(memory_RM, phones, track, begin, end)
        new_TK = self._finished(part_RM, track, style_N, begin)[first - begin : last - begin]
        times_s = np.arange(first, last) / self.fps
        edge_T = np.minimum(times_s - span_s[0], span_s[1] - times_s)
        share_T1 = np.clip(1 + edge_T / FADE_S, 0, 1)[:, None]
        share_T1 = (share_T1 * share_T1 * (3 - 2 * share_T1)).astype(np.float32)
        return first, weights_TK[first:last] * (1 - share_T1) + new_TK * share_T1

    def memory(
        self, memory_RM: np.ndarray, phones: Phones, track: Track, first: int = 0, last: int | None = None
    ) -> np.ndarray:
        """What the decoder reads in frames [first, last): the forced phones' memory in place of the heard one."""
        last = len(memory_RM) if last is None else last
        mixed_RM = memory_RM[first:last].astype(np.float32)
        forced = [phone for phone in track.phones if phone.forced]
        for begin, end in _groups(forced, self.fps, first, last):
            shares_RP = self._shares(phones, forced, begin - REACH, end + REACH)
            spans_s = [(p.start_s - begin / self.fps, p.end_s - begin / self.fps) for p in forced]
            share_R1 = covered(spans_s, end - begin, self.fps)[:, None]
            mixed_RM[begin - first : end - first] *= 1 - share_R1
            mixed_RM[begin - first : end - first] += share_R1 * self._reader.memory(shares_RP)
        return mixed_RM

    def _shares(self, phones: Phones, forced: Iterable, first: int, last: int) -> np.ndarray:
        """Phone shares of frames [first, last): the forced phones, and between them those that were heard."""
        at_L = (np.arange(first, last) / self.fps - phones.first_s) * phones.rate_hz
        heard_RP = np.zeros((last - first, len(PHONES)), np.float32)
        inside = (at_L > -0.5) & (at_L < len(phones.posteriors_LP) - 0.5)
        if inside.any():
            nearest = np.rint(at_L[inside]).astype(int).clip(0, len(phones.posteriors_LP) - 1)
            heard_RP[inside] = phones.posteriors_LP[nearest]
        heard_RP[~inside, PHONES.index(SILENCE)] = 1
        forced_RP, share_R1 = forced_shares(((p.name, p.start_s, p.end_s) for p in forced), first, last, self.fps)
        return forced_RP + heard_RP * (1 - share_R1)

    def _finished(self, memory_RM: np.ndarray, track: Track, style_N: np.ndarray, first: int) -> np.ndarray:
        """Decode, close the lips on forced p, b and m, and apply the directions."""
        offset_s = first / self.fps
        weights_TK = self._articulated(memory_RM, track, style_N, offset_s)
        shortest_s = 1.01 / self.fps  # so that a frame lies in it
        closed: list[Timing] = []
        for phone in track.phones:
            if phone.forced and phone.name in BILABIALS:
                middle, half = (phone.start_s + phone.end_s) / 2, max(phone.end_s - phone.start_s, shortest_s) / 2
                closed.append((phone.name, middle - half - offset_s, middle + half - offset_s))
        closed += [("M", d.start_s - offset_s, d.end_s - offset_s) for d in track.directions if d.name == "closed"]
        closed = [timing for timing in closed if timing[2] > -1 and timing[1] < len(memory_RM) / self.fps + 1]
        if closed:
            weights_TK = close_lips(weights_TK, closed, self._mouth, self.fps)
        for name, starts in SCALED.items():
            gain_T = 1 + self._amount(track, name, offset_s, len(memory_RM))
            columns = [k for k, channel in enumerate(self._channels) if _scaled_by(channel, starts)]
            weights_TK[:, columns] *= gain_T[:, None]
        weights_TK *= 1 - self._amount(track, "rest", offset_s, len(memory_RM))[:, None]
        return weights_TK.clip(0, 1).astype(np.float32)

    def _articulated(self, memory_RM: np.ndarray, track: Track, style_N: np.ndarray, offset_s: float) -> np.ndarray:
        """The decoded motion, over- or under-articulated where the track says so."""
        weights_TK = self._decoder.decode(memory_RM, style_N, 0, lambda _done: None)
        if self._articulation is None:
            return weights_TK
        rounded = [
            (p.start_s - offset_s, p.end_s - offset_s, 1.0) for p in track.phones if p.forced and p.name in ROUNDED
        ]
        amount_T = ROUNDED_ARTICULATION * held(len(memory_RM), rounded, DIRECTION_FADE_S, DIRECTION_FADE_S, self.fps)
        amount_T += self._amount(track, "articulation", offset_s, len(memory_RM))
        for sign, style in zip((-1, 1), self._articulation, strict=True):
            share_T = (sign * amount_T).clip(0, 1)
            if share_T.any():
                other_N = np.eye(len(self._styles), dtype=np.float32)[self._styles.index(style)]
                other_TK = self._decoder.decode(memory_RM, other_N, 0, lambda _done: None)
                weights_TK = weights_TK + share_T[:, None] * (other_TK - weights_TK)
        return weights_TK

    def _amount(self, track: Track, name: str, offset_s: float, n_frames: int) -> np.ndarray:
        return directed(track.directions, name, n_frames, self.fps, DIRECTION_FADE_S, offset_s)


def _scaled_by(channel: str, starts: tuple[str, ...]) -> bool:
    if starts == SCALED["lips"] and channel == "mouthClose":
        return False
    return not starts or channel.startswith(starts)


def _groups(forced: list, fps: float, first: int, last: int) -> list[tuple[int, int]]:
    """Runs of frames in [first, last) that forced phones touch."""
    touched = np.zeros(last - first + 1, bool)
    for phone in forced:
        begin = int(np.floor(phone.start_s * fps - 0.5)) - first
        end = int(np.ceil(phone.end_s * fps + 1.5)) - first
        touched[max(0, begin) : max(0, min(end, last - first))] = True
    runs, start = [], first
    for is_touched, some in groupby(touched[:-1].tolist()):
        length = len(list(some))
        if is_touched:
            runs.append((start, start + length))
        start += length
    return runs
