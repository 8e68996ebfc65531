# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech from a file or an array: mono, 16 kHz, normalised. It is read in pieces, so memory does not grow with length.

The samples are kept as float32 in a temporary file (230 MB per hour), which disappears with the process.
Shape suffixes: C channels, N source samples, S samples at 16 kHz, P hops of the level envelope.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import soxr

from ..errors import Text, UserError
from .channel_mix import Channels, Mix, integer_scale
from .frame_timing import MAX_CHANNELS, SAMPLE_RATE_HZ, checked_rate
from .sound_file import BLOCK, StageProgress, file_sha256, open_sound, regular_file

MIN_DURATION_S = 0.2

# Added to the variance before the square root, as transformers' Wav2Vec2FeatureExtractor does.
VARIANCE_EPSILON = 1e-7
# How often the free space is asked for, and what is left of it.
_CHECKED_BYTES, _RESERVE_BYTES = 64 << 20, 200 << 20
# A recording with a smaller range than this is silent (a 24-bit step is 1.2e-7).
SILENCE_RANGE = 1e-6
# NumPy takes 13 ns to average a row of two channels, and 1 ns to add two columns; columns of wide rows miss the cache.
_MAX_COLUMNS = 8

# Level envelope of `split_utterances`: hops of 10 ms; a pause lasts at least 150 ms.
_HOP = 160
_MIN_PAUSE_HOPS = 15
# The threshold of a pause lies at this fraction between the quiet and the loud level of its surroundings, in dB.
_QUIET_FRACTION = 0.35
# These two levels must be at least this far apart: steady noise has no pauses.
_MIN_CONTRAST_DB = 6.0


class Speech:
    """One recording as mono 16 kHz float32, normalised over its whole length; a context manager.

    Channels are averaged with equal weights, unless that would lose speech (`channel_mix.py`). Dialogue in the centre
    channel of a 7.1 mix becomes 1/8 as loud, which normalisation undoes; music in the other channels remains.

    Attributes:
        name: The file's name, for messages.
        n_samples: Number of samples at 16 kHz, S.
        sha256: Hash of the source file's bytes, or of the array's.
        recording: The file that this is the sound of; None for samples from memory, or sound that was mixed.
        begins_s: Where in `recording` this begins, if it is a part of it; None if it is all of it.
        notes: What was done differently than expected, and what is missing.
        features: A file with features of it, for models that do not hear it themselves; None: it is looked for beside
            `recording`.
    """

    def __init__(self, *, name: str, sha256: str, samples: IO[bytes], n_samples: int, mean: float, variance: float):
        self.name = name
        self.sha256 = sha256
        self.n_samples = n_samples
        self.notes: list[Text] = []
        self.recording: Path | None = None
        self.begins_s: float | None = None
        self.features: Path | None = None
        self._samples = samples
        self._mean = float(mean)
        self._scale = float(1.0 / np.sqrt(variance + VARIANCE_EPSILON))

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        temp_dir: str | os.PathLike[str] | None = None,
        progress: StageProgress | None = None,
    ) -> Speech:
        """Decode any format that libsndfile reads (wav, flac, ogg, opus, mp3, aiff, …).

        A file is read to its true end, whatever its header says. A flac, ogg or mp3 file that is shorter than its
        header says is refused; what else is missing is noted. A wav or aiff file is read as far as it goes, as players
        do: recorders that lose power and programs that write into a pipe leave such headers. A pipe is copied first.

        Args:
            path: The recording.
            temp_dir: Folder of the temporary file; None for the system's.
            progress: Called with ("audio", fraction).

        Raises:
            UserError: The file is missing, unreadable, damaged, silent or longer than 12 hours, or the temporary folder
                has no room for it.
        """
        path = Path(path)
        with regular_file(path, temp_dir) as file:
            sha256 = file_sha256(file)
            with open_sound(file, path.name) as source:
                rate_hz = checked_rate(source.samplerate, path.name)
                source.check_length(source.frames)
                needed_bytes = int(source.frames / rate_hz * SAMPLE_RATE_HZ) * 4
                _check_space(path.name, temp_dir or tempfile.gettempdir(), needed_bytes)
            notes: list[Text] = []

            def blocks() -> Iterator[np.ndarray]:
                with open_sound(file, path.name) as source:
                    yield from source.blocks(progress)
                    notes[:] = source.notes

            speech = cls._ingest(path.name, sha256, blocks, rate_hz, temp_dir)
            speech.notes[:0] = notes
        speech.recording = path
        return speech

    @classmethod
    def from_array(
        cls,
        waveform: np.ndarray,
        sample_rate: float,
        name: str = "audio",
        temp_dir: str | os.PathLike[str] | None = None,
    ) -> Speech:
        """Take samples from memory, (N,) or (C, N): floats, or integers (8 to 32 bit, uint8), which are scaled.

        Raises:
            UserError: Wrong type, shape, rate or content, or the temporary folder is full.
        """
        waveform = np.asarray(waveform)
        waveform_CN = np.atleast_2d(waveform)
        if waveform.ndim not in (1, 2):
            raise UserError(
                "{file}: the waveform has {n_axes} axes; (N,) or (channels, N) is needed.",
                file=name,
                n_axes=waveform.ndim,
            )
        integer_scale(waveform.dtype, name)  # refuses other types
        if waveform_CN.shape[0] > MAX_CHANNELS:
            raise UserError(
                "{file}: {n_channels} channels; channels come first, so transpose the waveform.",
                file=name,
                n_channels=waveform_CN.shape[0],
            )
        rate_hz = checked_rate(sample_rate, name)
        sha256 = hashlib.sha256(np.ascontiguousarray(waveform).data).hexdigest()
        n_source = waveform_CN.shape[1] if waveform_CN.size else 0

        def blocks() -> Iterator[np.ndarray]:
            return (waveform_CN[:, start : start + BLOCK].T for start in range(0, n_source, BLOCK))

        return cls._ingest(name, sha256, blocks, rate_hz, temp_dir)

    @classmethod
    def _ingest(
        cls,
        name: str,
        sha256: str,
        blocks: Callable[[], Iterator[np.ndarray]],
        rate_hz: float,
        temp_dir: str | os.PathLike[str] | None,
    ) -> Speech:
        """Check, mix, resample and store a stream of blocks (samples, C), floats or integers.

        It is read again if equal weights turn out to be wrong for its channels.
        """
        folder = temp_dir or tempfile.gettempdir()
        stream, mix = _Stream(name, rate_hz), None
        with contextlib.ExitStack() as on_failure:
            with _disk_errors(name, folder):
                samples = tempfile.TemporaryFile(prefix="wav2sem_", dir=folder)  # noqa: SIM115 (closed by close())
            on_failure.callback(_close_quietly, samples)
            _store(stream.resampled(blocks()), samples, name, folder)
            if mix := stream.channels.best_mix():
                stream = _Stream(name, rate_hz, mix)
                samples.seek(0)
                _store(stream.resampled(blocks()), samples, name, folder)
            with _disk_errors(name, folder):
                samples.truncate()
                samples.flush()
            stream.check_content()
            on_failure.pop_all()
        speech = cls(
            name=name,
            sha256=sha256,
            samples=samples,
            n_samples=stream.n_samples,
            mean=stream.mean,
            variance=stream.squares / stream.n_samples,
        )
        speech.notes += mix.notes if mix else ()
        return speech

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / SAMPLE_RATE_HZ

    def read(self, start: int, stop: int, normalised: bool = True) -> np.ndarray:
        """Samples start … stop - 1 as float32 (S,): (x - mean) / sqrt(variance + 1e-7) over the WHOLE recording.

        With `normalised` False, a read-only array of the resampled values in -1 … 1.
        """
        assert 0 <= start <= stop <= self.n_samples, (start, stop, self.n_samples)
        self._samples.seek(4 * start)
        raw_S = np.frombuffer(self._samples.read(4 * (stop - start)), dtype=np.float32)
        assert raw_S.size == stop - start
        return (raw_S - self._mean) * self._scale if normalised else raw_S

    def close(self) -> None:
        """Delete the temporary file; may be called twice."""
        _close_quietly(self._samples)

    def __enter__(self) -> Speech:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Stream:
    """Source blocks -> checked mono -> 16 kHz, with running statistics of the whole recording."""

    def __init__(self, name: str, rate_hz: float, mix: Mix | None = None) -> None:
        self.name = name
        self.mix = mix
        self.channels = Channels(rate_hz)
        self.rate_hz = rate_hz
        self.n_source = 0
        self.lowest = self.highest = 0.0
        self.channel_range = 0.0
        # Mean and sum of squared deviations at 16 kHz, merged block by block (Chan et al.), in double precision.
        self.n_samples, self.mean, self.squares = 0, 0.0, 0.0

    def resampled(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Mono pieces at 16 kHz, float32 (S,), from blocks of shape (samples, C)."""
        same_rate = self.rate_hz == SAMPLE_RATE_HZ
        resampler = None if same_rate else soxr.ResampleStream(self.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        offset: np.float32 | None = None
        for block_NC in self.mix.mixed(blocks, self.name) if self.mix else blocks:
            mono_N = self._mono(block_NC)
            if not self.mix:
                self.channels.watch(block_NC)
            if offset is None:
                # The resampler starts from zero, so a DC offset would click. The first block's mean is enough:
                # normalisation removes the rest.
                offset = mono_N.mean(dtype=np.float64).astype(np.float32)
            mono_N = mono_N - offset
            yield self._counted(resampler.resample_chunk(mono_N) if resampler else mono_N)
        if resampler:
            yield self._counted(resampler.resample_chunk(np.zeros(0, np.float32), last=True))

    def _mono(self, block_NC: np.ndarray) -> np.ndarray:
        offset, scale = integer_scale(block_NC.dtype, self.name)
        with np.errstate(over="ignore", invalid="ignore"):
            mono_N = ((_channel_mean(block_NC) + offset) * scale).astype(np.float32)
            lowest, highest = float(mono_N.min()), float(mono_N.max())
        if not np.isfinite([lowest, highest]).all():
            second = (self.n_source + int(np.argmin(np.isfinite(mono_N)))) / self.rate_hz
            raise UserError(
                "{file}: the sample at {second:.3f} s is not a number or infinite; repair the recording there, or "
                "export it again as 16-bit or 24-bit wav.",
                file=self.name,
                second=second,
            )
        first = self.n_source == 0
        self.lowest = lowest if first else min(self.lowest, lowest)
        self.highest = highest if first else max(self.highest, highest)
        if self.is_silent:  # only then does anybody ask
            ranges_C = np.ptp(block_NC.astype(np.float64), axis=0)
            self.channel_range = max(self.channel_range, scale * float(ranges_C.max()))
        self.n_source += len(mono_N)
        return mono_N

    @property
    def is_silent(self) -> bool:
        """Whether the mix has been constant so far."""
        return self.highest - self.lowest < SILENCE_RANGE

    def _counted(self, piece_S: np.ndarray) -> np.ndarray:
        if piece_S.size:
            mean = float(piece_S.mean(dtype=np.float64))
            squares = float(np.square(piece_S - mean, dtype=np.float64).sum())
            total = self.n_samples + piece_S.size
            delta = mean - self.mean
            self.squares += squares + delta * delta * self.n_samples * piece_S.size / total
            self.mean += delta * piece_S.size / total
            self.n_samples = total
        return np.ascontiguousarray(piece_S, dtype=np.float32)

    def check_content(self) -> None:
        """Refuse a recording that is too short or silent, once it is read."""
        duration_s = self.n_source / self.rate_hz
        if self.n_source == 0:
            raise UserError("{file}: the file contains no samples; record or export it again.", file=self.name)
        if duration_s < MIN_DURATION_S or self.n_samples == 0:
            raise UserError(
                "{file}: {duration_s:.2g} s of audio; at least {min_duration_s} s is needed.",
                file=self.name,
                duration_s=duration_s,
                min_duration_s=MIN_DURATION_S,
            )
        if self.is_silent:
            if self.channel_range >= SILENCE_RANGE:
                reason = "its channels cancel each other out when mixed to mono; export one channel alone"
            elif self.highest == self.lowest == 0:
                reason = "every sample is zero; choose another file, or check the recorded channel"
            else:
                reason = "all samples have the same value; choose another file, or check the recorded channel"
            raise UserError("{file}: the recording is silent: {reason}.", file=self.name, reason=Text(reason))


def _channel_mean(block_NC: np.ndarray) -> np.ndarray:
    """Mean over the channels in double precision, float64 (N,)."""
    n_channels = block_NC.shape[1]
    if n_channels > _MAX_COLUMNS:
        return block_NC.mean(axis=1, dtype=np.float64)
    sum_N = block_NC[:, 0].astype(np.float64)
    for channel in range(1, n_channels):
        sum_N += block_NC[:, channel]
    return sum_N / n_channels


def _store(pieces: Iterator[np.ndarray], samples: IO[bytes], name: str, folder: str | os.PathLike[str]) -> None:
    n_unchecked = 0
    for piece_S in pieces:
        with _disk_errors(name, folder):
            samples.write(piece_S.data)
        n_unchecked += piece_S.nbytes
        if n_unchecked > _CHECKED_BYTES:
            n_unchecked = 0
            _check_space(name, folder, _CHECKED_BYTES + 1)


def _check_space(name: str, folder: str | os.PathLike[str], needed_bytes: int) -> None:
    """Raise UserError if the disk would have less than a reserve left: other programs need it too."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return  # whoever writes says why
    if needed_bytes + (_RESERVE_BYTES if needed_bytes > _CHECKED_BYTES else 0) > free:
        raise _no_room(name, folder, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def _disk_errors(name: str, folder: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _no_room(name, folder, error.strerror) from error


def _no_room(name: str, folder: str | os.PathLike[str], reason: str | None) -> UserError:
    return UserError(
        "{file}: the decoded audio cannot be stored in {folder} ({reason}); an hour needs 230 MB. Free some space or "
        "choose another temporary folder.",
        file=name,
        folder=folder,
        reason=reason,
    )


def _close_quietly(samples: IO[Any]) -> None:
    with contextlib.suppress(OSError):  # a full disk fails again on closing
        samples.close()


def split_utterances(speech: Speech, max_s: float = 20.0, min_s: float = 2.0) -> list[tuple[int, int]]:
    """Sample ranges that cover the recording without gaps, cut in the speaker's pauses.

    A recording of up to `max_s` is one range. A longer one is cut in the middle of its most salient pause, and so are
    the parts until all fit. Salience is the area between the level in dB and an adaptive threshold: depth times length.
    Without a pause, the cut is at the quietest place near the middle.

    Args:
        speech: The recording; only its level envelope is held in memory (0.36 million floats per hour).
        max_s: Longest range in seconds.
        min_s: Shortest range in seconds, unless the whole recording is shorter; at most half of `max_s`.
    """
    if not 0 < 2 * min_s <= max_s:
        raise UserError(
            "Utterances of {min_s} to {max_s} s are impossible; the longest must be at least twice the shortest.",
            min_s=min_s,
            max_s=max_s,
        )
    max_samples, min_samples = int(max_s * SAMPLE_RATE_HZ), int(np.ceil(min_s * SAMPLE_RATE_HZ))
    if speech.n_samples <= max_samples:
        return [(0, speech.n_samples)]
    pauses = Pauses(level_db(speech))
    done: list[tuple[int, int]] = []
    waiting = [(0, speech.n_samples)]
    while waiting:
        start, stop = waiting.pop()
        if stop - start <= max_samples:
            done.append((start, stop))
            continue
        first_hop = -(-(start + min_samples) // _HOP)
        last_hop = (stop - min_samples) // _HOP
        cut = _HOP * pauses.best_cut(first_hop, max(first_hop, last_hop))
        waiting += [(start, cut), (cut, stop)]
    return sorted(done)


def level_db(speech: Speech) -> np.ndarray:
    """Level of every 10 ms hop, smoothed over 50 ms, float32 (P,) in dB above the recording's RMS, at least -80."""
    hops_per_read = 1000
    powers = []
    for start in range(0, speech.n_samples, hops_per_read * _HOP):
        samples_S = speech.read(start, min(start + hops_per_read * _HOP, speech.n_samples))
        edges = np.arange(0, len(samples_S), _HOP)
        powers.append(np.add.reduceat(np.square(samples_S), edges) / np.diff(edges, append=len(samples_S)))
    power_P = np.convolve(np.pad(np.concatenate(powers), 2, mode="edge"), np.full(5, 0.2, np.float32), mode="valid")
    return 10 * np.log10(power_P + 1e-8)


class Pauses:
    """The pauses of a recording, found in its level envelope."""

    def __init__(self, level_P: np.ndarray) -> None:
        self.level_P = level_P
        depth_P = np.maximum(_local_thresholds_db(level_P) - level_P, 0)
        starts, stops = _runs(depth_P > 0)
        long_enough = stops - starts >= _MIN_PAUSE_HOPS
        self.starts, self.stops = starts[long_enough], stops[long_enough]
        self.area = np.concatenate([[0.0], np.cumsum(depth_P, dtype=np.float64)])

    def best_cut(self, first: int, last: int) -> int:
        """The best hop to cut at, first <= hop <= last."""
        begin, end = np.searchsorted(self.stops, first, side="right"), np.searchsorted(self.starts, last, side="left")
        if begin < end:
            starts = np.maximum(self.starts[begin:end], first)
            stops = np.minimum(self.stops[begin:end], last)
            best = int(np.argmax(self.area[stops] - self.area[starts]))
            return self._middle(int(starts[best]), int(stops[best]))
        # Without a pause: the quietest hop of the middle third, preferring the centre.
        third = (last - first) // 3
        first, last = first + third, last - third
        hops = np.arange(first, last + 1)
        off_centre = np.abs(hops - (first + last) / 2) / max(1, last - first)
        level = self.level_P[np.minimum(hops, len(self.level_P) - 1)]
        return int(hops[np.argmin(level + off_centre)])

    def _middle(self, start: int, stop: int) -> int:
        """The middle of a pause, or of its longest quiet part if it is uneven (a soft voice after a loud one)."""
        while np.isfinite(threshold := _threshold_db(self.level_P[start:stop], 2 * _MIN_CONTRAST_DB)):
            starts, stops = _runs(self.level_P[start:stop] < threshold)
            longest = int(np.argmax(stops - starts))
            if stops[longest] - starts[longest] < _MIN_PAUSE_HOPS:
                break
            start, stop = start + int(starts[longest]), start + int(stops[longest])
        return (start + stop) // 2


def _runs(condition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(starts, stops) of the runs in which `condition` (P,) holds."""
    edges = np.flatnonzero(np.diff(condition, prepend=False, append=False))
    return edges[::2], edges[1::2]


def _threshold_db(level_P: np.ndarray, min_contrast_db: float = _MIN_CONTRAST_DB) -> float:
    """Level between quiet and loud in this stretch, or minus infinity if it is steady."""
    quiet, loud = np.percentile(level_P, [10, 90])
    return float(quiet + _QUIET_FRACTION * (loud - quiet)) if loud - quiet >= min_contrast_db else -np.inf


def _local_thresholds_db(level_P: np.ndarray) -> np.ndarray:
    """The threshold of the 30 s around each hop (P,), which follows changes of room and speaker."""
    hops_per_block = 1000
    threshold_P = np.empty_like(level_P)
    for start in range(0, len(level_P), hops_per_block):
        around = level_P[max(0, start - hops_per_block) : start + 2 * hops_per_block]
        threshold_P[start : start + hops_per_block] = _threshold_db(around)
    return threshold_P
