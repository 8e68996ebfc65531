# SPDX-License-Identifier: GPL-3.0-or-later
"""CodeTalker's published files, with a small encoder and a small Wav2Sem in the place of the full-size ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from wav2sem_blender.errors import MissingFileError, UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.audio import Speech  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, Wav2SemConfig, Wav2SemFolder, open_folder  # noqa: E402
from wav2sem_blender.pipeline.hosts.codetalker import RELEASES  # noqa: E402
from wav2sem_blender.pipeline.nn.codetalker import CODEC  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import build_backbone  # noqa: E402
from wav2sem_blender.pipeline.official import codetalker as files  # noqa: E402
from wav2sem_blender.pipeline.official import export_official, import_official  # noqa: E402
from wav2sem_blender.pipeline.official import wav2sem as semantics  # noqa: E402

from .tiny_codetalker import HOSTS  # noqa: E402, TID252

SPEECH = np.random.default_rng(0).standard_normal(9_000)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """`published(data, semantic)` writes both files of a tiny model; the network, its state dicts and the paths."""
    small = {"conv_dim": [8] * 7, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 16, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    monkeypatch.setattr(files, "ENCODER", EncoderConfig(kind="wav2vec2", config=small))
    monkeypatch.setattr(semantics, "RELEASED", small)
    monkeypatch.setattr(semantics, "CONFIG", Wav2SemConfig(config=small, target_dim=12))

    def raw(name: str, skipped: str = "") -> dict:
        torch.manual_seed(len(name))
        state = {f"{name}.{key}": value for key, value in build_backbone("wav2vec2", small).state_dict().items()}
        for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
            state = {key.replace(f"parametrizations.weight.{new}", old): value for key, value in state.items()}
        return {key: value for key, value in state.items() if key != f"{name}.{skipped}"}

    def write(data: str, semantic: bool = False):
        release = RELEASES[f"codetalker-{data}"]
        network = replace(HOSTS[data], period=release.host.period).network(3 * release.n_vertices, len(release.styles))
        torch.manual_seed(1)
        for name, value in network.state_dict().items():
            if "norm" not in name:
                value.normal_(std=0.4)
        network.autoencoder.motion_from.head.weight.data.mul_(1e-3)
        stage_1 = {key: value for key, value in network.state_dict().items() if key.startswith(CODEC)}
        stage_2 = {key: value for key, value in network.state_dict().items() if key not in stage_1}
        stage_2 |= raw("audio_encoder") | {"PPE.pe": torch.zeros(1, 600 + network.config.period, 16)}
        stage_2 |= {"audio_feature_map.weight": torch.randn(16, 12), "audio_feature_map.bias": torch.randn(16)}
        if semantic:
            inside = raw("Wav2Bert", "masked_spec_embed")
            for theirs, ours in (
                ("FeatureExtractor", "feature_extractor"),
                ("FeatureProjection", "feature_projection"),
            ):
                inside = {key.replace(f".{ours}.", f".{theirs}."): value for key, value in inside.items()}
            stage_2 |= {key.replace("Bert.encoder.", "Bert.Encoder."): value for key, value in inside.items()}
            stage_2 |= {"bert_feature_map.weight": torch.randn(12, 12), "bert_feature_map.bias": torch.randn(12)}
        stage_1 = {key.removeprefix(CODEC): value for key, value in stage_1.items()}
        stage_1 |= {f"{part}.{part}_pos_embedding.pe": torch.zeros(5000, 1, 16) for part in ("encoder", "decoder")}
        paths = [tmp_path / f"{data}_stage{number}.pth.tar" for number in (1, 2)]
        for path, state in zip(paths, (stage_1, stage_2), strict=True):
            torch.save({"state_dict": state}, path)
        return network.eval(), stage_1, stage_2, *paths

    return write


@pytest.mark.parametrize("data", HOSTS)
@pytest.mark.parametrize("semantic", [False, True], ids=["plain", "wav2sem"])
def test_published_files_there_and_back(data: str, semantic: bool, published, tmp_path) -> None:
    network, stage_1, stage_2, file_1, file_2 = published(data, semantic)
    # Given in the wrong order, the kind "auto" finds the one to import.
    import_official(file_1, "auto", tmp_path / "model", beside=[file_2])
    animator = SpeechAnimator.load(tmp_path / "model")
    config = animator.folder.config
    assert config.host.folded and config.provenance["imported"] == f"codetalker-{data}"
    assert (config.wav2sem is not None) == config.legacy_predict == semantic
    motion = animator.animate(SPEECH, 16_000, style=1)
    with Speech.from_array(SPEECH, 16_000) as speech:
        memory_RM = animator._listener.listen(speech, 1.0, lambda stage, fraction: None).memory_RM
    with torch.no_grad():
        style_1N = torch.eye(len(config.styles))[[1]]
        expected_TX = network(torch.from_numpy(memory_RM)[None], style_1N)[0].numpy()
    np.testing.assert_allclose(
        motion.vertex_offsets().reshape(expected_TX.shape), expected_TX, atol=1e-4 * np.abs(expected_TX).max()
    )
    assert np.abs(motion.weights_TK).max() <= 1 + 1e-5
    written = export_official(animator.folder, tmp_path)
    for path, state in zip(written, (stage_2, stage_1), strict=True):
        again = torch.load(path, weights_only=True)
        assert again["state_dict"].keys() == state.keys()
        for key, value in state.items():
            assert again["state_dict"][key].shape == value.shape, key
            assert key.endswith(".pe") or torch.equal(again["state_dict"][key], value), key
    notes: list = []
    if semantic:  # alone, the file gives its Wav2Sem, as its kind "codetalker-wav2sem" does
        import_official(file_2, "auto", tmp_path / "semantics", notes)
        assert isinstance(open_folder(tmp_path / "semantics"), Wav2SemFolder)
        assert [note.template for note in notes] == [
            "{file}: its Wav2Sem is imported; for its face, give the file of stage 1 too"
        ]
    # Our own files say that FC counts in inference.
    import_official(written[0], "auto", tmp_path / "again", beside=[written[1]])
    assert SpeechAnimator.load(tmp_path / "again").folder.config.legacy_predict == semantic


def test_wrong_pairs_are_named(published, tmp_path) -> None:
    *_, vocaset_1, vocaset_2 = published("vocaset")
    *_, stage_1, stage_2, biwi_1, biwi_2 = published("biwi")
    wider = {key: value for key, value in stage_2.items() if key != "feat_map.weight"}
    torch.save({"state_dict": wider | {"feat_map.weight": torch.zeros(12, 16)}}, tmp_path / "wide.pth.tar")
    torch.save({"state_dict": {key: stage_1[key] for key in list(stage_1)[:20]}}, tmp_path / "half.pth.tar")
    cases = [
        (biwi_2, [], MissingFileError, "biwi_stage2.* needs stage 1, the codec of the same data set too"),
        (biwi_2, [vocaset_2], MissingFileError, "needs stage 1, the codec of the same data set too"),
        (biwi_1, [], MissingFileError, "biwi_stage1.pth.tar: this is stage 1, the codec; .* needs stage 2 too"),
        (biwi_2, [vocaset_1], UserError, "vocaset_stage1.pth.tar: it moves 5023 vertices, codetalker-biwi has 23370"),
        (vocaset_2, [biwi_1], UserError, "vocaset_stage2.pth.tar: it moves 5023 vertices, codetalker-biwi has 23370"),
        (
            tmp_path / "wide.pth.tar",
            [biwi_1],
            UserError,
            r"feat_map.weight has shape \(12, 16\), \(8, 16\) is exp",
        ),
        (biwi_2, [tmp_path / "half.pth.tar"], UserError, "is missing; this is another model's file"),
    ]
    for file, beside, error, message in cases:
        with pytest.raises(error, match=message):
            import_official(file, "codetalker-biwi", tmp_path / "out", beside=beside)
    with pytest.raises(MissingFileError, match="biwi_stage1.pth.tar: it is stage 1, a codec of motion; the file of st"):
        import_official(biwi_1, "auto", tmp_path / "out")
    assert not (tmp_path / "out").exists()
