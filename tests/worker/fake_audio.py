# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for `pipeline/audio.py` in a package of the tests' own: a recording that is only its file's name."""

import time
from pathlib import Path


def linger(stage, name, progress):
    """Half a minute in one stage, if the recording is called "slow_" and that stage's name."""
    for step in range(600) if name == f"slow_{stage}" else ():
        progress(stage, step / 600)
        time.sleep(0.05)


class Speech:
    def __init__(self, path, temp_dir):
        self.path, self.temp_dir = Path(path), Path(temp_dir)
        self.name = self.path.stem

    @classmethod
    def from_file(cls, path, temp_dir=None, progress=None):
        progress("audio", 0.5)
        speech = cls(path, temp_dir)
        (speech.temp_dir / "waveform.raw").write_bytes(b"x" * 1000)
        linger("audio", speech.name, progress)
        if not speech.path.exists():
            raise FileNotFoundError(f"{path}: there is no such audio file.")
        return speech

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass
