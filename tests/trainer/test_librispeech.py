# SPDX-License-Identifier: GPL-3.0-or-later
"""LibriSpeech's layout: every utterance is found at any level of --data, and broken ones are counted by reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.trainer.miniature_librispeech import write_librispeech
from trainer.datasets.librispeech import LibriSpeech, is_librispeech


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_librispeech(tmp_path / "LibriSpeech", chapters=2)
    return tmp_path / "LibriSpeech"


def counts(speech: LibriSpeech) -> dict[str, int]:
    return {reason: some["count"] for reason, some in speech.skipped.items()}


def test_every_utterance_is_kept_in_lower_case(tmp_path: Path) -> None:
    texts = write_librispeech(tmp_path, subsets=("train-clean-100", "train-other-500", "dev-clean"), chapters=2)
    speech = LibriSpeech(tmp_path)
    assert {record.name: record.text for record in speech.records} == {name: t.lower() for name, t in texts.items()}
    assert counts(speech) == {}
    assert all("\n" not in record.text and record.text == record.text.lower() for record in speech.records)
    for record in speech.records:
        samples = speech.samples(record)
        assert samples.dtype == np.float32 and len(samples) == record.n_samples == sf.info(record.path).frames
        assert record.speaker == record.name.split("-")[0] and record.path.parents[2].name == record.corpus


@pytest.mark.parametrize("place", ["..", ".", "train-clean-100"])
def test_data_may_name_any_level(root: Path, place: str) -> None:
    speech = LibriSpeech(root / place)
    found = {record.name for record in speech.records if record.corpus == "train-clean-100"}
    assert len(found) == 12 and len(speech.records) == (12 if place == "train-clean-100" else 24)
    assert is_librispeech(root / place)


def test_merged_speakers_without_subsets(root: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    for subset in ("train-clean-100", "dev-clean"):
        shutil.copytree(root / subset, merged, dirs_exist_ok=True)
    speech = LibriSpeech(merged)
    assert len(speech.records) == 24 and {record.corpus for record in speech.records} == {"merged"}


def test_dev_is_validation_and_test_is_unused(tmp_path: Path) -> None:
    write_librispeech(tmp_path, subsets=("train-clean-100", "dev-other", "test-clean"))
    splits = {record.corpus: record.split for record in LibriSpeech(tmp_path).records}
    assert splits == {"train-clean-100": "train", "dev-other": "valid", "test-clean": "test"}


def test_without_dev_some_speakers_are_held_out_whole(tmp_path: Path) -> None:
    write_librispeech(tmp_path, subsets=("train-clean-100",), speakers=24, utterances=2, longest_s=0.6)
    by_split = {
        split: {r.speaker for r in LibriSpeech(tmp_path).records if r.split == split} for split in ("train", "valid")
    }
    assert len(by_split["valid"]) == 1 and len(by_split["train"]) == 23
    assert not by_split["valid"] & by_split["train"]


def test_one_speaker_is_held_out_by_utterance(tmp_path: Path) -> None:
    write_librispeech(tmp_path, subsets=("train-clean-100",), speakers=1, utterances=10, longest_s=0.6)
    splits = [record.split for record in LibriSpeech(tmp_path).records]
    assert splits.count("valid") == 1 and splits.count("train") == 9


def test_broken_files_are_counted_by_reason(root: Path) -> None:
    chapter = root / "train-clean-100" / "100" / "1000"
    transcript = chapter / "100-1000.trans.txt"
    first, second, third = transcript.read_text().splitlines()
    ghost = "100-1000-0099 NOBODY SAYS THIS"
    transcript.write_text(f"{first.split()[0]}\n{second}\n\n{ghost}\n")  # the third line is gone
    assert third.startswith("100-1000-0002")
    flac = root / "train-clean-100" / "101" / "1000" / "101-1000-0000.flac"
    flac.write_bytes(flac.read_bytes()[:-200])
    (flac.parent / "101-1000-0001.flac").write_bytes(b"not a flac at all")
    sf.write(flac.parent / "101-1000-0002.flac", np.zeros(1600), 16_000)
    other = root / "train-clean-100" / "101" / "1001"
    sf.write(other / "101-1001-0000.flac", np.zeros(22_050), 22_050)
    (root / "train-clean-100" / ".DS_Store").write_bytes(b"\0")
    shutil.copy(chapter / "100-1000-0001.flac", chapter / "copy of 100-1000-0001.flac")
    shutil.copy(chapter / "100-1000-0001.flac", other / "100-1000-0001.flac")
    speech = LibriSpeech(root)
    assert counts(speech) == {
        "empty transcript": 1,
        "no transcript": 1,
        "transcript without a recording": 1,
        "stray file": 3,
        "unreadable flac": 2,
        "shorter than 0.2 s": 1,
        "not 16 kHz mono": 1,
    }
    assert len(speech.records) == 24 - 2 - 2 - 1 - 1
    assert speech.skipped["no transcript"]["example"].endswith("100-1000-0002.flac")
    spoken = LibriSpeech(root, transcribed=False)
    assert len(spoken.records) == len(speech.records) + 2, "sound alone is enough where texts are not needed"


def test_a_transcript_that_is_not_text(root: Path) -> None:
    (root / "train-clean-100" / "100" / "1000" / "100-1000.trans.txt").write_bytes(b"\xff\xfe\x00garbage")
    assert counts(LibriSpeech(root)) == {"unreadable transcript": 1, "no transcript": 3}


def test_nothing_left_is_an_error_that_says_why(root: Path, tmp_path: Path) -> None:
    for path in root.rglob("*.flac"):
        path.write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no usable utterance .*unreadable flac: 24, as .*\.flac"):
        LibriSpeech(root)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        LibriSpeech(tmp_path / "nowhere")
    assert not is_librispeech(tmp_path / "nowhere")


def test_damage_in_the_middle_is_an_error_with_the_name(root: Path) -> None:
    speech = LibriSpeech(root)
    record = max(speech.records, key=lambda record: record.n_samples)
    data = bytearray(record.path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    record.path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{record.name}.flac: cannot be decoded"):
        speech.samples(record)
