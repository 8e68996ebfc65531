# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves as an earlier commit made them: `python tests/golden/golden_curves.py record|compare FILE [--long]`.

A refactoring must not change a curve by one bit. `record` animates fixed recordings with the bundled model and with two
imported FaceFormers of random weights; `compare` does it again and prints the differences. Both use the public API
only, so a copy of this script runs in any commit's checkout:

    git worktree add /tmp/before COMMIT && cp -r tests/golden /tmp/before/tests/
    (cd /tmp/before && python tests/golden/golden_curves.py record /tmp/golden.npz --long)
    python tests/golden/golden_curves.py compare /tmp/golden.npz --long

After a new bundled model, record anew:

    python tests/golden/golden_curves.py record tests/golden/curves.npz

The same bits come only from the same libraries on the same kind of processor. Elsewhere `compare` takes the curves as
equal within `tolerance`: the weights span 0 to 1, and kernels of two processors differ by 1e-6. The bundled model's
graph rounds to 8 bits, so there such a difference can move a weight by 0.01.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Sums by several threads have other bits than those by one.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import soundfile  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402

SPEECH = ROOT / "wav2sem_blender" / "assets" / "demo_speech.flac"
RATE_HZ = 16_000
TOLERANCE, TOLERANCE_OF_8_BITS = 1e-4, 0.03
KEPT_FRAMES = 40
"""Frames of each curve that the file keeps as numbers, evenly spread; the rest is in the hash."""
LIBRARIES = ("numpy", "onnxruntime", "torch", "transformers")


@functools.cache
def recording(duration_s: float) -> np.ndarray:
    """The demo sentence again and again, each time at another level and after another pause, on a little noise."""
    speech_S, rate_hz = soundfile.read(SPEECH, dtype="float32")
    speech_S = speech_S[:: rate_hz // RATE_HZ] if rate_hz != RATE_HZ else speech_S
    random = np.random.default_rng(0)
    wanted = round(duration_s * RATE_HZ)
    parts, length = [], 0
    while length < wanted:
        pause_S = np.zeros(random.integers(RATE_HZ // 5, 2 * RATE_HZ), np.float32)
        parts += [np.float32(random.uniform(0.3, 1.0)) * speech_S, pause_S]
        length += len(parts[-1]) + len(parts[-2])
    samples_S = np.concatenate(parts)[:wanted]
    return samples_S + np.float32(1e-4) * random.standard_normal(wanted, dtype=np.float32)


def bundled(_folder: Path) -> SpeechAnimator:
    """The model in the package."""
    return SpeechAnimator.load("default", engine="onnx", device="cpu")


def imported(kind: str, width: int, n_vertices: int, n_styles: int, period: int, folder: Path) -> SpeechAnimator:
    """A FaceFormer of full size: random weights in the released format, through the importer."""
    import torch

    from wav2sem_blender.pipeline.official import import_official

    file = folder / f"{kind}.pth"
    torch.save(released_state(width, 3 * n_vertices, n_styles, period), file)
    import_official(file, kind, folder / kind)
    return SpeechAnimator.load(folder / kind, engine="torch", device="cpu")


def released_state(width: int, n_values: int, n_styles: int, period: int) -> dict:
    """FaceFormer's state dict by the table of its release; the motion is a few millimetres."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    layer = torch.nn.TransformerDecoderLayer(width, 4, 2 * width, batch_first=True)
    state = {f"transformer_decoder.layers.0.{key}": value for key, value in layer.state_dict().items()}
    for key, value in Wav2Vec2Model(Wav2Vec2Config()).state_dict().items():
        old = key.replace("parametrizations.weight.original0", "weight_g")
        state[f"audio_encoder.{old.replace('parametrizations.weight.original1', 'weight_v')}"] = value
    return state | {
        "audio_feature_map.weight": torch.randn(width, 768) * 0.05,
        "audio_feature_map.bias": torch.randn(width) * 0.05,
        "vertice_map.weight": torch.randn(width, n_values) * 0.1,
        "vertice_map.bias": torch.randn(width) * 0.1,
        "vertice_map_r.weight": torch.randn(n_values, width) * 1e-3,
        "vertice_map_r.bias": torch.randn(n_values) * 1e-3,
        "obj_vector.weight": torch.randn(width, n_styles),
        "PPE.pe": torch.zeros(1, (600 // period + 1) * period, width),
    }


MODELS: dict[str, Callable[[Path], SpeechAnimator]] = {
    "bundled": bundled,
    "faceformer-vocaset": functools.partial(imported, "faceformer-vocaset", 64, 5023, 8, 30),
    "faceformer-biwi": functools.partial(imported, "faceformer-biwi", 128, 23370, 6, 25),
}
SHORT = (("bundled", 5.0), ("bundled", 53.0), ("bundled", 180.0), ("faceformer-vocaset", 5.0), ("faceformer-biwi", 5.0))
LONG = (("faceformer-vocaset", 53.0), ("faceformer-vocaset", 180.0), ("faceformer-biwi", 53.0))


def curves(cases: tuple[tuple[str, float], ...], folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Animate each case; yields its name and float32 (T, K)."""
    animators: dict[str, SpeechAnimator] = {}
    for model, duration_s in cases:
        if model not in animators:
            animators[model] = MODELS[model](folder)
        motion = animators[model].animate(recording(duration_s), RATE_HZ, style=0, semantic_strength=0.8)
        yield f"{model} {duration_s:.0f} s", motion.weights_TK


def machine() -> str:
    """What the bits depend on: libraries and processor."""
    versions = []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([platform.system(), platform.machine(), _processor(), *versions])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def digest(weights_TK: np.ndarray) -> str:
    """sha256 of a curve's bytes."""
    return hashlib.sha256(np.ascontiguousarray(weights_TK).tobytes()).hexdigest()


def kept(weights_TK: np.ndarray) -> np.ndarray:
    """The frames that the file keeps as numbers."""
    return weights_TK[np.linspace(0, len(weights_TK) - 1, KEPT_FRAMES).astype(int)]


def tolerance(case: str) -> float:
    """How much a curve may differ on another machine."""
    return TOLERANCE_OF_8_BITS if case.startswith("bundled") else TOLERANCE


def record(file: Path, cases: tuple[tuple[str, float], ...]) -> None:
    """Write what this commit makes."""
    arrays: dict[str, np.ndarray] = {"machine": np.array(machine())}
    with tempfile.TemporaryDirectory() as folder:
        for name, weights_TK in curves(cases, Path(folder)):
            arrays |= {f"{name}/shape": np.array(weights_TK.shape), f"{name}/sha256": np.array(digest(weights_TK))}
            arrays[f"{name}/frames"] = kept(weights_TK)
    np.savez_compressed(file, **arrays)


def differences(file: Path, cases: tuple[tuple[str, float], ...], folder: Path) -> Iterator[tuple[str, str]]:
    """Each case and what differs from the recorded curves: "" where nothing does."""
    with np.load(file) as golden:
        same_machine = str(golden["machine"]) == machine()
        for name, weights_TK in curves(cases, folder):
            if weights_TK.shape != tuple(golden[f"{name}/shape"]):
                yield name, f"shape {weights_TK.shape}, was {tuple(golden[f'{name}/shape'])}"
                continue
            greatest = float(np.abs(kept(weights_TK) - golden[f"{name}/frames"]).max())
            if same_machine and digest(weights_TK) != str(golden[f"{name}/sha256"]):
                yield name, f"not the same bits; the kept frames differ by up to {greatest:.2g}"
            elif greatest > tolerance(name):
                yield name, f"differs by up to {greatest:.2g}, {tolerance(name):g} is allowed on another machine"
            else:
                yield name, ""


def main() -> int:
    """Record or compare; exit status 1 where a curve differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--long", action="store_true", help="53 s and 3 minutes of the imported models too")
    options = parser.parse_args()
    cases = SHORT + LONG if options.long else SHORT
    if options.verb == "record":
        record(options.file, cases)
        return 0
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, difference in differences(options.file, cases, Path(folder)):
            print(f"{name}: {difference or 'the same'}")
            failed += bool(difference)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
