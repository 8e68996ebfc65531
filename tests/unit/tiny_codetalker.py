# SPDX-License-Identifier: GPL-3.0-or-later
"""CodeTalker's two releases at a size that a test runs in no time."""

from __future__ import annotations

from dataclasses import replace

from wav2sem_blender.pipeline.hosts.codetalker import BIWI, VOCASET

TINY = {"dim": 16, "layers": 2, "ffn_dim": 32, "codec_dim": 16, "codec_heads": 4, "codec_ffn_dim": 24}
TINY |= {"codec_blocks": 2, "n_codes": 11}
HOSTS = {
    "vocaset": replace(VOCASET, **TINY, latent=16, code_width=4, period=3),
    "biwi": replace(BIWI, **TINY, latent=8, code_width=4, period=4),
}
