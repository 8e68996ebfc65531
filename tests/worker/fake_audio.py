# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for `pipeline/audio.py` in a package of the tests' own: a recording that is only its file's name."""

import time
from pathlib import Path


def linger(stage, path, progress=None):
    """Stay in a stage while the recording's name is "slow_" and the stage's, until a file "go" lies beside it."""
    end_s = time.monotonic() + 30
    while path.stem == f"slow_{stage}" and not path.with_name("go").exists() and time.monotonic() < end_s:
        if progress is not None:
            progress(stage, 0.5)
        time.sleep(0.05)


class Speech:
    def __init__(self, path, temp_dir):
        self.path, self.temp_dir = Path(path), Path(temp_dir)

    @classmethod
    def from_file(cls, path, temp_dir=None, progress=None):
        progress("audio", 0.5)
        speech = cls(path, temp_dir)
        (speech.temp_dir / "waveform.raw").write_bytes(b"x" * 1000)
        linger("audio", speech.path, progress)
        if not speech.path.exists():
            raise FileNotFoundError(f"{path}: there is no such audio file. Choose it again where it is now.")
        return speech

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass
