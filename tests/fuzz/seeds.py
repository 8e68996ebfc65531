# SPDX-License-Identifier: GPL-3.0-or-later
"""Valid inputs, which the targets damage: tiny files of every kind that the add-on reads, all made here."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

RATE_HZ = 16_000
CORPUS = Path(__file__).parent / "corpus"
_FORMATS = (
    *(("WAV", subtype) for subtype in ("PCM_16", "PCM_24", "PCM_U8", "FLOAT", "ULAW", "IMA_ADPCM", "MS_ADPCM")),
    *(("WAV", subtype) for subtype in ("GSM610", "MPEG_LAYER_III", "G721_32", "NMS_ADPCM_16")),
    *(("AIFF", subtype) for subtype in ("PCM_16", "PCM_S8", "FLOAT", "ALAW", "IMA_ADPCM", "GSM610", "DWVW_16")),
    *(("AU", subtype) for subtype in ("PCM_16", "FLOAT", "ULAW", "G721_32")),
    *(("CAF", subtype) for subtype in ("PCM_16", "ALAC_16", "ALAC_24", "ULAW")),
    *(("FLAC", subtype) for subtype in ("PCM_16", "PCM_24")),
    *(("OGG", subtype) for subtype in ("VORBIS", "OPUS")),
    *(("MP3", subtype) for subtype in ("MPEG_LAYER_III", "MPEG_LAYER_II")),
    *(("W64", subtype) for subtype in ("PCM_16", "MS_ADPCM")),
    *(("RF64", "PCM_16"), ("WAVEX", "PCM_16"), ("SVX", "PCM_16"), ("NIST", "PCM_16"), ("VOC", "PCM_16")),
    *(("PAF", "PCM_24"), ("SDS", "PCM_16"), ("IRCAM", "PCM_16"), ("XI", "DPCM_16"), ("WVE", "ALAW")),
    *(("MAT4", "PCM_16"), ("MAT5", "PCM_16"), ("PVF", "PCM_16"), ("HTK", "PCM_16"), ("AVR", "PCM_16")),
)
_SUFFIXES = {"OGG": ".ogg", "WAV": ".wav", "AIFF": ".aiff", "FLAC": ".flac", "MP3": ".mp3", "AU": ".au", "CAF": ".caf"}


@cache
def sounds() -> dict[str, bytes]:
    """File name -> a third of a second of sound, in every format that libsndfile writes here."""
    import soundfile

    time_S = np.arange(RATE_HZ // 3) / RATE_HZ
    voice_S = 0.4 * np.sin(2 * np.pi * 150 * time_S) * np.sin(2 * np.pi * 3 * time_S) ** 2
    made = {}
    for container, subtype in _FORMATS:
        for n_channels, rate_hz in ((1, RATE_HZ), (2, 44_100)):
            content = io.BytesIO()
            try:
                soundfile.write(content, np.stack([voice_S] * n_channels, 1), rate_hz, subtype, format=container)
            except (soundfile.LibsndfileError, ValueError, TypeError):
                continue  # this version writes no such file
            suffix = _SUFFIXES.get(container, ".wav")
            made[f"{container}_{subtype}_{n_channels}{suffix}"] = content.getvalue()
    twice = {
        name: 2 * made[name] for name in list(made) if name.startswith(("WAV_PCM_16", "OGG", "MP3_MPEG_LAYER_III"))
    }
    return made | {f"twice_{name}": content for name, content in twice.items()}


@cache
def motions() -> dict[str, bytes]:
    """Motions and features as .npz and .npy."""
    from wav2sem_blender.pipeline.motion import Motion
    from wav2sem_blender.pipeline.phones import PHONES, Phones

    rng = np.random.default_rng(0)
    phones = Phones(posteriors_LP=rng.random((20, len(PHONES))).astype(np.float16))
    whole = Motion(
        weights_TK=rng.random((12, 3)),
        channels=("jawOpen", "mouthPucker", "x"),
        fps=30.0,
        basis_KV3=rng.random((3, 4, 3)),
        info={"model": "m"},
        phones=phones,
    )
    content = io.BytesIO()
    whole._write_npz(content)
    plain = io.BytesIO()
    np.savez_compressed(plain, weights_TK=np.zeros((9, 2)), channels=["a", "b"], fps=30, info="{}", format_version=1)
    features = io.BytesIO()
    np.save(features, rng.random((25, 29)).astype(np.float32))
    return {"motion.npz": content.getvalue(), "packed.npz": plain.getvalue(), "features.npy": features.getvalue()}


def mappings() -> list[Any]:
    """Key mappings as JSON data."""
    rows = [{"channel": "jawOpen", "key": "Mouth_Open", "gain": 1.0}, {"channel": "mouthPucker", "key": "W", "gain": 2}]
    kinds: tuple[str, ...] = ("", "oculus", "vrm")
    return [{"format": "wav2sem key mapping", "version": 1, "visemes": kind, "rows": rows} for kind in kinds]


@cache
def tracks() -> dict[str, bytes]:
    """Tracks of words, phones and directions in every format, with heard phones and keyed amounts."""
    import tempfile

    from wav2sem_blender.pipeline.words.track import Direction, Phone, Track, Word
    from wav2sem_blender.pipeline.words.track_files import SUFFIXES, save_track

    words = (Word("hello", 0.1, 0.5), Word("world", 0.5, 1.0))
    phones = (Phone("HH", 0.1, 0.2), Phone("AH", 0.2, 0.5), Phone("W", 0.5, 0.7), Phone("ER", 0.7, 1.0, 0.6, False))
    directions = (Direction("jaw", 0.1, 0.5, 1.5), Direction("brows", 0.2, 0.9, None, (0.0, 1.0, 0.5)))
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in SUFFIXES:
            path = Path(folder, f"track{suffix}")
            save_track(Track(words=words, phones=phones, directions=directions), path)
            made[path.name] = path.read_bytes()
    return made


def manifests() -> dict[str, bytes]:
    """Manifests of a batch."""
    return {
        "lines.csv": b"audio,text,track,style,strength,settings\na.wav,hello,,0,1.0,\nb.wav,,a.wav,clear,0.5,\n",
        "lines.jsonl": b'{"audio": "a.wav", "settings": {"style": "clear", "fps": 25}}\n{"audio": "b.wav"}\n',
    }


@cache
def pickles() -> dict[str, bytes]:
    """Pickles of arrays, and a checkpoint of torch in both formats where torch is there."""
    import pickle

    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": [np.int32(3), ("x", b"y"), {1, 2}], "c": bytearray(b"z")}
    made = {f"arrays_{protocol}.pkl": pickle.dumps(arrays, protocol) for protocol in (0, 2, 4, 5)}
    try:
        import torch
    except ImportError:
        return made
    state = {"wav2sem.weight": torch.arange(12.0).reshape(3, 4), "bias": torch.zeros(3, dtype=torch.float16)}
    for name, stored in (("new.pth", state), ("nested.pth", {"state_dict": state, "epoch": 3})):
        content = io.BytesIO()
        torch.save(stored, content)
        made[name] = content.getvalue()
    content = io.BytesIO()
    torch.save(state, content, _use_new_zipfile_serialization=False)
    return made | {"old.pth": content.getvalue()}


def folders() -> dict[str, dict[str, bytes]]:
    """Model folders, file by file: the stored one with graphs, and one of each host where torch is there."""
    stored = {path.name: path.read_bytes() for path in sorted((CORPUS / "model").iterdir())}
    return {"graphs": stored, **_folders_of_torch()}


_SIZES = {
    **{"conv_dim": [8] * 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"intermediate_size": 16, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
}
_ARKIT_HEAD = "inhouse_blendshape_weight"
_TINY_HOSTS: dict[str, dict[str, Any]] = {
    "faceformer": {"dim": 16, "heads": 2, "ffn_dim": 16, "period": 30},
    "faceformer_channels": {"dim": 16, "heads": 2, "ffn_dim": 16, "look_ahead": 2},
    "joint_audio_text": {"dim": 16, "heads": 2, "ffn_dim": 16, "text_dim": 4},
    "imitator": {"dim": 16, "heads": 2},
    "facediffuser": {"dim": 16, "steps": 3, "audio_dim": 16, "folded": True},
    "unitalker": {"dim": 16, "style_dim": 4, "layers": 2, "heads": [[_ARKIT_HEAD, 51]]},
}


@cache
def _folders_of_torch() -> dict[str, dict[str, bytes]]:
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError:
        return {}
    import tempfile

    from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig, Wav2SemConfig, save_model
    from wav2sem_blender.pipeline.hosts import host_class
    from wav2sem_blender.pipeline.nn.face_model import FaceModel

    made = {}
    torch.manual_seed(0)
    for kind, settings in _TINY_HOSTS.items():
        host = host_class(kind)(**settings)
        channels = tuple(host.channels) if kind == "unitalker" else ("jawOpen", "mouthPucker", "bias")
        config = ModelConfig(
            name=kind,
            encoder=EncoderConfig(kind="wavlm" if kind == "unitalker" else "wav2vec2", config=_SIZES),
            wav2sem=Wav2SemConfig(config=_SIZES, target_dim=12) if kind == "faceformer" else None,
            host=host,
            channels=channels,
            styles=("one", "two"),
        )
        tensors = {key: value.numpy() for key, value in FaceModel(config).state_dict().items()}
        tensors["basis_KV3"] = np.zeros((len(channels), 4, 3), np.float32)
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder, "model"), config, tensors)
            made[kind] = {path.name: path.read_bytes() for path in sorted(Path(folder, "model").iterdir())}
    return made


def write_stored_model() -> None:
    """Make corpus/model: a tiny model of the bundled one's kind with its graphs. Needs torch and onnx."""
    import tempfile

    import torch

    from trainer.loops.export import export_onnx
    from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig, Wav2SemConfig, save_model
    from wav2sem_blender.pipeline.hosts.faceformer_channels import FaceFormerChannels
    from wav2sem_blender.pipeline.nn.face_model import FaceModel

    torch.manual_seed(0)
    ear = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "hidden_size": 8}
    reader = {"feature_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "stride": 4}
    config = ModelConfig(
        name="tiny",
        encoder=EncoderConfig(kind="whisper", config=ear),
        wav2sem=Wav2SemConfig(config=reader, target_dim=12, shared=True),
        host=FaceFormerChannels(dim=16, heads=2, ffn_dim=16, look_ahead=2, steady=True),
        channels=("jawOpen", "mouthPucker"),
        styles=("natural", "clear", "mumbled"),
        articulation=("mumbled", "clear"),
        phones=("SIL", "AA", "B"),
    )
    model = FaceModel(config).eval()
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}
    tensors["basis_KV3"] = np.zeros((2, 4, 3), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        save_model(CORPUS / "model", config, tensors, export_onnx(model, config, Path(folder)))


def as_json(content: bytes) -> Any:
    """The data of a JSON file."""
    return json.loads(content)
