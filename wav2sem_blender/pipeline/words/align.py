# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the words of a transcript are, by the likeliest path (Viterbi) through the phones that the ear heard.

The path goes through the words in their order. Between two words it may pass a silence or a filler, which takes
whatever was heard and costs a little for each frame; it may also leave out words. So text that is missing, wrong or too
much does no harm: where it does not fit, the path prefers the filler, and the ear's own phones count there.

Memory does not grow with the recording: only scores at block boundaries are kept, and each block is computed again,
from the last to the first, to follow the path back. Of a long text only a window of words around the best path is
looked at.

Shape suffixes: L encoder frames, P phones, W words, S states of the window, B boundaries between its words (words + 1).
Each word's states are its silence, its filler, and its phones; the last boundary has silence and filler alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..phones import PHONES, SILENCE, Phones

# In nats; chosen on validation recordings (docs/experiments.md).
_FLOOR = 1e-3  # of a posterior: the ear may err
_FILLER, _FILLER_FRAME = 10.0, 0.8
_SILENCE = 0.5
_SKIP, _SKIP_MORE = 5.0, 1.0  # the first word left out, and each further one
_LATE_S = 0.0  # what the ear's boundaries are early by
_OUTSIDE_FRAME = 1.0  # a word's frame outside the time of its subtitle
_OUTSIDE_S = 0.7  # subtitles begin and end about so much beside the speech

_BLOCK = 500  # frames
WINDOW_WORDS = 360
_BEHIND = 120  # of these lie before the best path
_LOWEST = -1e30

# Sounds that a speaker may say for one another, or the ear may take for one another: each counts for the other by this.
_SIMILAR = 0.3
_PAIRS = """
    AH,IH AH,EH AH,AE AH,UH AH,AA AH,AO AH,ER ER,R IH,IY IH,EH IH,EY EH,AE EH,EY AE,AY AA,AO AA,AW AO,OW OW,UH UW,UH
    OY,AO IY,Y UW,W AA,AY AE,AW P,B T,D K,G S,Z SH,ZH Z,ZH CH,JH CH,T CH,SH JH,D JH,ZH F,V TH,DH TH,T DH,D TH,S DH,Z
    N,NG N,M L,OW L,AO T,S HH,K DH,N D,N
    """
_SIL, _FILL, _END = range(3)  # how a path reached a boundary


class Found(NamedTuple):
    """A word: its phone k is from `edges_s[k]` to `edges_s[k + 1]`, with `shares[k]` of the ear's probability there."""

    edges_s: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def confidence(self) -> float:
        """How well the word fits, 0..1: the mean of its phones' shares."""
        return min(1.0, sum(self.shares) / len(self.shares))


class Line(NamedTuple):
    """Words [first, stop) are said about `start_s` to `end_s`."""

    first: int
    stop: int
    start_s: float
    end_s: float


def align(
    heard: Phones,
    words: Sequence[Sequence[str]],
    lines: Sequence[Line] = (),
    progress: Callable[[float], None] | None = None,
) -> list[Found | None]:
    """Find each word in the recording; None for those that are not there.

    Args:
        heard: What the ear heard; its names are those of `PHONES`.
        words: The phones of each word, at least one.
        lines: Times of some words, such as those of subtitles; a hint that costs when it is wrong, no more.
        progress: Called with the fraction done.
    """
    if not words or not len(heard.posteriors_LP):
        return [None] * len(words)
    return _Alignment(heard, words, lines, progress or (lambda _done: None)).found()


class _Window:
    """The states of words [first, stop), and how they follow each other."""

    def __init__(self, words: Sequence[Sequence[str]], first: int, stop: int) -> None:
        self.first, self.stop = first, stop
        column = {name: i for i, name in enumerate(PHONES)}
        columns: list[int] = []
        starts, lasts = [], []
        for word in words[first:stop]:
            starts.append(len(columns))
            columns += [column[SILENCE], len(PHONES), *(column[name] for name in word)]
            lasts.append(len(columns) - 1)
        starts.append(len(columns))
        columns += [column[SILENCE], len(PHONES)]
        self.columns_S = np.array(columns)
        self.starts_B = np.array(starts)  # of the silences; the fillers and the first phones come next
        self.lasts_W = np.array(lasts, np.int64)
        self.steps_B = np.arange(len(starts), dtype=np.float32) * np.float32(_SKIP_MORE)


class _Alignment:
    def __init__(
        self,
        heard: Phones,
        words: Sequence[Sequence[str]],
        lines: Sequence[Line],
        progress: Callable[[float], None],
    ) -> None:
        self.heard, self.words, self.progress = heard, words, progress
        self.n_frames = len(heard.posteriors_LP)
        self.times = _word_frames(heard, len(words), lines)
        self.counts_PP = _similar()

    def found(self) -> list[Found | None]:
        checkpoints = self._forward()
        states, boundary = self._backward(checkpoints)
        return self._read(states, boundary)

    # Forward, keeping a window and its scores for each block.

    def _forward(self) -> list[tuple[_Window, np.ndarray, np.ndarray]]:
        n_words = len(self.words)
        window = _Window(self.words, 0, min(n_words, WINDOW_WORDS))
        alpha_S = np.full(len(window.columns_S), _LOWEST, np.float32)
        at_B = np.full(len(window.starts_B), _LOWEST, np.float32)
        at_B[0] = 0.0
        at_B = np.maximum(at_B, _skips(at_B, window.steps_B, np.empty_like(at_B)))
        checkpoints = []
        for first in range(0, self.n_frames, _BLOCK):
            if n_words > WINDOW_WORDS:
                window, alpha_S, at_B = self._moved(window, alpha_S, at_B)
            top = max(float(alpha_S.max()), float(at_B.max()))
            alpha_S, at_B = np.maximum(alpha_S - top, _LOWEST), np.maximum(at_B - top, _LOWEST)
            checkpoints.append((window, alpha_S, at_B))
            if first + _BLOCK < self.n_frames:  # the way back begins with the last block
                alpha_S, at_B, _ = self._block(window, alpha_S, at_B, first, keep=False)
            self.progress(0.5 * min(1.0, (first + _BLOCK) / self.n_frames))
        return checkpoints

    def _moved(self, window: _Window, alpha_S: np.ndarray, at_B: np.ndarray) -> tuple[_Window, np.ndarray, np.ndarray]:
        """The window around the best path, with the scores of the words that stay in it."""
        best = window.first + int(np.argmax(at_B))
        first = min(max(0, best - _BEHIND), len(self.words) - WINDOW_WORDS)
        if first == window.first:
            return window, alpha_S, at_B
        new = _Window(self.words, first, first + WINDOW_WORDS)
        new_alpha_S = np.full(len(new.columns_S), _LOWEST, np.float32)
        new_at_B = np.full(len(new.starts_B), _LOWEST, np.float32)
        a, b = max(first, window.first), min(new.stop, window.stop)
        new_at_B[a - first : b - first + 1] = at_B[a - window.first : b - window.first + 1]
        own = window.starts_B[a - window.first], window.starts_B[b - window.first] + 2
        to = new.starts_B[a - first]
        new_alpha_S[to : to + own[1] - own[0]] = alpha_S[own[0] : own[1]]
        if b < new.stop:  # the old window's last boundary had no word behind it
            new_at_B = np.maximum(new_at_B, _skips(new_at_B, new.steps_B, np.empty_like(new_at_B)))
        return new, new_alpha_S, new_at_B

    def _block(
        self, window: _Window, alpha_S: np.ndarray, at_B: np.ndarray, first: int, keep: bool
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray] | None]:
        """Scores after a block of frames; with `keep` also how states and boundaries were reached: whether a
        state was entered, and each boundary's way and the boundary before the words that were left out."""
        score_lS = self._scores(window, first)
        n_kept = len(score_lS) if keep else 1
        came_lS = np.zeros((n_kept, len(alpha_S)), bool)
        # A boundary is reached from its silence, its filler or the word before it, or by leaving out words.
        reach_l3B = np.empty((n_kept, 3, len(at_B)), np.float32)
        skipped_lB = np.empty((n_kept, len(at_B)), np.float32)
        sil_B, fill_B, first_W = window.starts_B, window.starts_B + 1, window.starts_B[:-1] + 2
        entries = np.concatenate([sil_B, fill_B, first_W])
        costs_31 = np.array([[_SILENCE], [_FILLER], [0.0]], np.float32)
        ways_3B = np.stack([sil_B, fill_B, np.append(0, window.lasts_W)])
        enter_S = np.empty_like(alpha_S)
        for i, score_S in enumerate(score_lS):
            kept = i if keep else 0
            enter_S[1:] = alpha_S[:-1]
            enter_S[entries] = (at_B - costs_31).ravel()[:-1]
            if keep:
                np.greater(enter_S, alpha_S, out=came_lS[kept])
            alpha_S = np.maximum(enter_S, alpha_S)
            alpha_S += score_S
            reach_3B = np.take(alpha_S, ways_3B, out=reach_l3B[kept], mode="clip")
            reach_3B[_END, 0] = _LOWEST  # no word is before the first boundary
            reached_B = np.maximum.reduce(reach_3B)
            at_B = np.maximum(reached_B, _skips(reached_B, window.steps_B, skipped_lB[kept]))
        if not keep:
            return alpha_S, at_B, None
        index_B = np.arange(len(at_B), dtype=np.int16)
        reached_lB = reach_l3B.max(1)
        lead_lB = reached_lB + window.steps_B
        origin_lB = np.where(lead_lB >= np.maximum.accumulate(lead_lB, 1), index_B, 0)
        np.maximum.accumulate(origin_lB, 1, out=origin_lB)
        from_lB = np.broadcast_to(index_B, reached_lB.shape).copy()
        from_lB[:, 1:] = np.where(skipped_lB[:, 1:] > reached_lB[:, 1:], origin_lB[:, :-1], index_B[1:])
        return alpha_S, at_B, (came_lS, reach_l3B.argmax(1), from_lB)

    def _scores(self, window: _Window, first: int) -> np.ndarray:
        """The logarithm of how well each frame of a block fits each state."""
        posteriors_lP = self.heard.posteriors_LP[first : first + _BLOCK].astype(np.float32)
        log_lP = np.log(np.maximum(posteriors_lP @ self.counts_PP, _FLOOR))
        filler_l1 = np.log(np.maximum(posteriors_lP.max(1, keepdims=True), _FLOOR)) - _FILLER_FRAME
        score_lS = np.concatenate([log_lP, filler_l1], 1)[:, window.columns_S]
        if self.times is not None:
            begin_W, end_W = (each[window.first : window.stop] for each in self.times)
            frames_l1 = np.arange(first, first + len(log_lP))[:, None]
            outside_lW = (frames_l1 < begin_W) | (frames_l1 >= end_W)
            lengths_W = np.diff(window.starts_B) - 2
            phones_S = np.ones(len(window.columns_S), bool)
            phones_S[window.starts_B] = phones_S[window.starts_B + 1] = False
            score_lS[:, phones_S] -= np.repeat(outside_lW, lengths_W, axis=1) * np.float32(_OUTSIDE_FRAME)
        return score_lS

    # Backward, block by block.

    def _backward(self, checkpoints: list[tuple[_Window, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """The word or boundary of each frame, and its state: 0 silence, 1 filler, from 2 on phones; (L,), (L,)."""
        word_L = np.zeros(self.n_frames, np.int64)
        part_L = np.zeros(self.n_frames, np.int64)
        place: tuple[int, int] | None = None  # word and part in the next frame; a part of -1 is its boundary
        for k in range(len(checkpoints) - 1, -1, -1):
            window, alpha_S, at_B = checkpoints[k]
            first = k * _BLOCK
            _, end_B, kept = self._block(window, alpha_S, at_B, first, keep=True)
            assert kept is not None
            came_lS, how_lB, from_lB = kept
            if place is None:
                reachable = end_B if window.stop == len(self.words) else end_B[:-1]
                last = len(end_B) - 1 if window.stop == len(self.words) else int(np.argmax(reachable))
                place = (window.first + last, -1)
            for i in range(len(came_lS) - 1, -1, -1):
                word, part = place
                boundary = word - window.first
                if part == -1:
                    boundary, part = self._before_boundary(boundary, how_lB[i], from_lB[i], window)
                state = int(window.starts_B[boundary]) + part
                word_L[first + i], part_L[first + i] = window.first + boundary, part
                if not came_lS[i, state]:
                    place = (window.first + boundary, part)
                else:
                    place = (window.first + boundary, part - 1 if part > 2 else -1)
            self.progress(1.0 - 0.5 * first / self.n_frames)
        return word_L, part_L

    @staticmethod
    def _before_boundary(boundary: int, how_B: np.ndarray, from_B: np.ndarray, window: _Window) -> tuple[int, int]:
        """The word and part whose last frame leads to a boundary."""
        boundary = int(from_B[boundary])
        if how_B[boundary] == _END:
            return boundary - 1, int(window.lasts_W[boundary - 1] - window.starts_B[boundary - 1])
        return boundary, int(how_B[boundary])

    def _read(self, word_L: np.ndarray, part_L: np.ndarray) -> list[Found | None]:
        found: list[Found | None] = [None] * len(self.words)
        column = {name: i for i, name in enumerate(PHONES)}
        on_L = np.flatnonzero(part_L >= 2)
        for run in np.split(on_L, np.flatnonzero(np.diff(word_L[on_L])) + 1):
            if not len(run):
                continue
            word = int(word_L[run[0]])
            names = self.words[word]
            starts = np.searchsorted(part_L[run] - 2, np.arange(len(names)))
            frames = [*(int(run[0] + start) for start in starts), int(run[-1]) + 1]
            shares = tuple(
                float(self.heard.posteriors_LP[a:b, column[name]].mean(dtype=np.float64))
                for name, (a, b) in zip(names, pairwise(frames), strict=True)
            )
            around = [self._part_name(word_L, part_L, i) for i in (frames[0] - 1, frames[-1])]
            changes = pairwise([around[0], *names, around[1]])
            edges = [self._edge_s(frame, *change) for frame, change in zip(frames, changes, strict=True)]
            found[word] = Found(tuple(np.maximum.accumulate(edges).tolist()), shares)
        return found

    def _part_name(self, word_L: np.ndarray, part_L: np.ndarray, frame: int) -> str | None:
        """The phone that the path has in a frame; None for the filler and outside the recording."""
        if not 0 <= frame < self.n_frames or part_L[frame] == 1:
            return None
        return self.words[word_L[frame]][part_L[frame] - 2] if part_L[frame] else SILENCE

    def _edge_s(self, frame: int, before: str | None, after: str | None) -> float:
        """When `before` becomes `after`, whose first frame is `frame`: where their probabilities cross."""
        share = 0.5
        if before is not None and after is not None and 0 < frame < self.n_frames:
            pair = self.heard.posteriors_LP[frame - 1 : frame + 1].astype(np.float64) @ self.counts_PP
            log = np.log(np.maximum(pair[:, [PHONES.index(before), PHONES.index(after)]], _FLOOR))
            (lead, behind) = log[:, 0] - log[:, 1]
            if lead > 0 > behind:
                share = min(max(lead / (lead - behind), 0.1), 0.9)  # every phone keeps some length
        return self.heard.first_s + (frame - 1 + share) / self.heard.rate_hz + _LATE_S


def _similar() -> np.ndarray:
    """How far each heard phone counts for each said one (P, P)."""
    counts_PP = np.eye(len(PHONES), dtype=np.float32)
    for pair in _PAIRS.split():
        a, b = (PHONES.index(name) for name in pair.split(","))
        counts_PP[a, b] = counts_PP[b, a] = _SIMILAR
    return counts_PP


def _skips(at_B: np.ndarray, steps_B: np.ndarray, skipped_B: np.ndarray) -> np.ndarray:
    """The best score (B,) of reaching each boundary from an earlier one by leaving out the words between.

    It is written into `skipped_B`.
    """
    lead_B = np.maximum.accumulate(at_B + steps_B)
    skipped_B[0] = _LOWEST
    np.subtract(lead_B[:-1], steps_B[1:], out=skipped_B[1:])
    skipped_B[1:] -= np.float32(_SKIP - _SKIP_MORE)
    return skipped_B


def _word_frames(heard: Phones, n_words: int, lines: Sequence[Line]) -> tuple[np.ndarray, np.ndarray] | None:
    """First and last frame (W,), (W,) in which each word is expected; None without times."""
    if not lines:
        return None
    begin_W = np.zeros(n_words)
    end_W = np.full(n_words, np.inf)
    for line in lines:
        begin_W[line.first : line.stop] = (line.start_s - _OUTSIDE_S - heard.first_s) * heard.rate_hz
        end_W[line.first : line.stop] = (line.end_s + _OUTSIDE_S - heard.first_s) * heard.rate_hz
    return begin_W, end_W
