# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepared data in miniature, as `prepare` writes them: clips of noise, phones, curves, and a basis of few channels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wav2sem_blender.assets import DEFAULT_MODEL
from wav2sem_blender.pipeline.checkpoint import ModelFolder

CHANNELS = ("jawOpen", "mouthClose", "mouthPucker")  # enough where no phones move the lips
RATE_HZ = 16_000
N_FRAMES = 29


def write_prepared(
    root: Path, channels: tuple[str, ...] = CHANNELS, phones: list[tuple[str, float, float]] | None = None
) -> None:
    """Five clips of a second: two with captured motion, two with driven motion, and one to validate on."""
    rng = np.random.default_rng(0)
    names = [f"clip{i}" for i in range(5)]
    (root / "speech").mkdir()
    np.save(root / "speech" / "audio.npy", (3000 * rng.standard_normal(len(names) * RATE_HZ)).astype(np.int16))
    records = [
        {"name": name, "corpus": "grid_s1", "speaker": "s1", "split": "valid" if i == 4 else "train",
         "text": f"words of {name}", "first": RATE_HZ * i, "n_samples": RATE_HZ, "phones": phones}
        for i, name in enumerate(names)
    ]  # fmt: skip
    (root / "speech" / "clips.json").write_text(json.dumps(records))
    for folder, some in (("motion", names[:2]), ("driven", names[2:4])):
        (root / folder).mkdir()
        np.save(root / folder / "weights.npy", rng.random((2 * N_FRAMES, len(channels))).astype(np.float32))
        clips = [
            {"name": name, "style": "grid_s1", "split": "train", "first": N_FRAMES * i, "n_frames": N_FRAMES}
            for i, name in enumerate(some)
        ]
        (root / folder / "clips.json").write_text(json.dumps({"channels": channels, "clips": clips}))
    shipped = ModelFolder.open(DEFAULT_MODEL)
    basis_KV3 = shipped.basis()
    assert basis_KV3 is not None
    picked = [shipped.config.channels.index(channel) for channel in channels]
    np.savez(root / "basis.npz", names=np.array(channels), basis_KV3=basis_KV3[picked])
