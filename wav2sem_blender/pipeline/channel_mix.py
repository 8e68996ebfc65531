# SPDX-License-Identifier: GPL-3.0-or-later
"""How the channels of a recording are mixed to mono without losing the speech of any of them.

Equal weights are right, unless channels hear the same speech with the opposite sign or at another time, or one of them
has only noise. `Channels` watches a recording while it is read, and says what is better, if anything is.
Shape suffixes: C channels, N source samples, P hops of 20 ms.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import Text, UserError

# Recordings with more channels are mixed with equal weights.
MAX_WATCHED = 8
# Statistics need no more samples a second than this; aliases correlate as what they are aliases of.
_WATCHED_HZ = 16_000
_HOP_S = 0.02
# The loudest blocks are kept for looking at the channels' delays.
_KEPT = 4
_MIN_SAMPLES = 2000
_MAX_DELAY_S = 0.25
# Channels that correlate like this need no further look; others hear the same speech from this correlation on.
_ALIKE, _SAME_SPEECH = 0.95, 0.4
# Another delay or sign must explain this much more.
_BETTER = 0.05
# Powers (their logarithms) that count as equal.
_TIE = 0.3
# A channel below this power, relative to the loudest, is silent. Noise below the other one does no harm.
_SILENT, _HARMLESS = 1e-6, 1e-3
# Range of the level, in dB, below which a channel is noise, and above which another one is speech.
_STEADY_DB, _SPEECH_DB = 4.0, 15.0
# Of two channels with the same speech, one is left out if its pauses are filled by this much more, in dB.
_NOISIER_DB = 12.0

_NOISE = "channel {channel} was left out of the mix, because it has only noise"
_NOISIER = "channel {channel} was left out of the mix, because channel {other} has the same with less noise"
_OPPOSITE = "channel {channel} was inverted before mixing, because it is the opposite of channel {other}"
_MOVED = "channel {channel} was moved by {milliseconds:.1f} ms, because it hears what channel {other} hears"


def integer_scale(dtype: np.dtype, name: str) -> tuple[float, float]:
    """(offset, scale) that map samples of this type to -1 … 1; floats are left alone."""
    if dtype.kind == "f":
        return 0.0, 1.0
    if dtype.kind == "i" and dtype.itemsize <= 4:
        return 0.0, 2.0 ** (1 - 8 * dtype.itemsize)
    if dtype == np.uint8:
        return -128.0, 1 / 128
    raise UserError("{file}: samples of type {dtype} are not supported; use float32 or int16.", file=name, dtype=dtype)


@dataclass(frozen=True)
class Mix:
    """Channels with their sign and with how many samples later they hear the speech; and notes about them."""

    channels: Sequence[tuple[int, float, int]]
    notes: Sequence[Text]

    def mixed(self, blocks: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
        """Mono blocks (samples, 1) of `blocks` (samples, C), float32."""
        earliest = min(later for _, _, later in self.channels)
        to_skip = [later - earliest for _, _, later in self.channels]
        waiting = [np.zeros(0, np.float32) for _ in self.channels]
        for block_NC in blocks:
            offset, scale = integer_scale(block_NC.dtype, name)
            for i, (channel, sign, _) in enumerate(self.channels):
                samples_N = (block_NC[:, channel].astype(np.float32) + np.float32(offset)) * np.float32(scale * sign)
                n_skipped = min(to_skip[i], len(samples_N))
                to_skip[i] -= n_skipped
                waiting[i] = np.concatenate([waiting[i], samples_N[n_skipped:]])
            n_ready = min(map(len, waiting))
            if n_ready:
                yield np.mean([samples_N[:n_ready] for samples_N in waiting], axis=0)[:, None]
            waiting = [samples_N[n_ready:] for samples_N in waiting]
        n_left = max(map(len, waiting))
        if n_left:
            yield np.mean([np.pad(samples_N, (0, n_left - len(samples_N))) for samples_N in waiting], axis=0)[:, None]


class Channels:
    """Statistics of a recording's channels, gathered block by block."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._step = max(1, round(rate_hz / _WATCHED_HZ))
        self._hop = max(1, round(_HOP_S * rate_hz / self._step))
        self._n = 0
        self._sums_C: np.ndarray | float = 0.0
        self._products_CC: np.ndarray | float = 0.0
        self._powers_PC: list[np.ndarray] = []
        self._kept: list[tuple[float, int, np.ndarray]] = []

    def watch(self, block_NC: np.ndarray) -> None:
        """Take the next block."""
        if not 2 <= block_NC.shape[1] <= MAX_WATCHED:
            return
        watched_NC = block_NC[:: self._step].astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # absurdly loud; `best_mix` then knows nothing
            self._watch(block_NC, watched_NC)

    def _watch(self, block_NC: np.ndarray, watched_NC: np.ndarray) -> None:
        products_CC = watched_NC.T @ watched_NC
        self._sums_C = self._sums_C + np.ones(len(watched_NC), np.float32) @ watched_NC
        self._products_CC = self._products_CC + products_CC.astype(np.float64)
        self._n += len(watched_NC)
        # Differences of neighbours: low hum and rumble would hide the pauses.
        steps_NC = watched_NC[1:] - watched_NC[:-1]
        n_hops = len(steps_NC) // self._hop
        if n_hops:
            hops_PNC = steps_NC[: n_hops * self._hop].reshape(n_hops, self._hop, -1)
            self._powers_PC.append(np.einsum("pnc,pnc->pc", hops_PNC, hops_PNC))
        score = float(np.trace(products_CC))
        if len(self._kept) < _KEPT or score > self._kept[0][0]:
            push = heapq.heappush if len(self._kept) < _KEPT else heapq.heappushpop
            push(self._kept, (score, self._n, block_NC))

    def best_mix(self) -> Mix | None:
        """What is better than equal weights; None if they are right."""
        if self._n < _MIN_SAMPLES or not self._powers_PC or not np.isfinite(self._products_CC).all():
            return None
        mean_C = np.asarray(self._sums_C, np.float64) / self._n
        cov_CC = np.asarray(self._products_CC) / self._n - np.outer(mean_C, mean_C)
        power_C = np.diag(cov_CC)
        if not power_C.max() > 0:
            return None
        active = [c for c in range(len(power_C)) if power_C[c] > _SILENT * power_C.max()]
        if len(active) < 2:
            return None
        notes: list[Text] = []
        range_C = self._ranges_db()
        loudest_speech = max((power_C[c] for c in active if range_C[c] >= _SPEECH_DB), default=0.0)
        kept = []
        for c in active:
            if range_C[c] < _STEADY_DB and power_C[c] > _HARMLESS * loudest_speech > 0:
                notes.append(
                    Text("channel {channel} was left out of the mix, because it has only noise", channel=c + 1)
                )
            else:
                kept.append(c)
        first = max(kept, key=lambda c: (range_C[c] >= _SPEECH_DB, round(np.log10(power_C[c]) / _TIE), -c))
        found = {first: (1.0, 0)}
        for c in kept:
            if c == first:
                continue
            same = cov_CC[first, c] / np.sqrt(power_C[first] * power_C[c])
            sign, later = 1.0, 0
            if same < _ALIKE:
                same, sign, later = self._alignment(first, c)
            if same >= _SAME_SPEECH and abs(range_C[c] - range_C[first]) >= _NOISIER_DB:
                noisier = min(c, first, key=lambda channel: range_C[channel])
                template = (
                    "channel {channel} was left out of the mix, because channel {other} has the same with less noise"
                )
                notes.append(Text(template, channel=noisier + 1, other=c + first - noisier + 1))
                if noisier == first:
                    del found[first]
                else:
                    continue
            if sign < 0:
                notes.append(Text(_OPPOSITE, channel=c + 1, other=first + 1))
            if later:
                template = (
                    "channel {channel} was moved by {milliseconds:.1f} ms, because it hears what channel {other} hears"
                )
                milliseconds = -1000 * later / self._rate_hz
                notes.append(Text(template, channel=c + 1, other=first + 1, milliseconds=milliseconds))
            found[c] = (sign, later)
        if not notes:
            return None
        return Mix([(c, sign, later) for c, (sign, later) in sorted(found.items())], notes)

    def _ranges_db(self) -> np.ndarray:
        power_PC = np.concatenate(self._powers_PC)
        quiet_C, loud_C = np.percentile(10 * np.log10(power_PC + 1e-8 * power_PC.max() + 1e-30), [10, 95], axis=0)
        return loud_C - quiet_C

    def _alignment(self, first: int, second: int) -> tuple[float, float, int]:
        """(correlation, sign, samples by which the second channel is later) of the delay that explains most."""
        step = self._step
        reach = round(_MAX_DELAY_S * self._rate_hz / step)
        total = energy_first = energy_second = 0.0
        for _, _, block_NC in self._kept:
            pair_2N = np.diff(block_NC[::step, [first, second]].astype(np.float32).T)
            n_fft = 1 << int(np.ceil(np.log2(max(2, pair_2N.shape[1] + reach))))
            spectra = np.fft.rfft(pair_2N, n_fft)
            product = np.fft.irfft(spectra[0].conj() * spectra[1], n_fft)
            total = total + np.concatenate([product[-reach:], product[: reach + 1]])
            energy_first += float(np.square(pair_2N[0]).sum())
            energy_second += float(np.square(pair_2N[1]).sum())
        scaled = total / max(np.sqrt(energy_first * energy_second), 1e-30)
        best = int(np.argmax(np.abs(scaled)))
        at_once = float(scaled[reach])
        if abs(scaled[best]) < _SAME_SPEECH or (abs(scaled[best]) < abs(at_once) + _BETTER):
            return abs(at_once), -1.0 if at_once <= -_SAME_SPEECH else 1.0, 0
        sign, later = float(np.sign(scaled[best])), (best - reach) * step
        if step > 1:
            later = max(
                range(later - step, later + step + 1), key=lambda shift: sign * self._product(first, second, shift)
            )
        return abs(float(scaled[best])), sign, later

    def _product(self, first: int, second: int, later: int) -> float:
        """Of the two channels, the second one taken so many samples later."""
        total = 0.0
        for _, _, block_NC in self._kept:
            n = len(block_NC) - abs(later)
            a, b = max(0, -later), max(0, later)
            if n > 0:
                first_N, second_N = block_NC[a : a + n, first], block_NC[b : b + n, second]
                total += float(np.dot(first_N.astype(np.float32), second_N.astype(np.float32)))
        return total
