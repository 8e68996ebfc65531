# SPDX-License-Identifier: GPL-3.0-or-later
"""UniTalker's files: imported heads move as the released code predicts, everything goes back, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
import torch.nn.functional as F  # noqa: E402

from wav2sem_blender.errors import Text, UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelFolder  # noqa: E402
from wav2sem_blender.pipeline.face_names import guess_key_map  # noqa: E402
from wav2sem_blender.pipeline.flame_parameters import Flame  # noqa: E402
from wav2sem_blender.pipeline.hosts.unitalker import (  # noqa: E402
    ARKIT,
    ARKIT_ORDER,
    BIWI,
    CHANNELS,
    EMOTALK,
    FLAME_PARAMETERS,
    HEADS,
    RELEASES,
    STYLES,
    VOCASET,
    UniTalker,
)
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import XLSR_53, build_backbone  # noqa: E402
from wav2sem_blender.pipeline.nn.unitalker import PCA_ARRAYS, Pca  # noqa: E402
from wav2sem_blender.pipeline.official import export_official, import_official  # noqa: E402
from wav2sem_blender.pipeline.official import unitalker as official  # noqa: E402

from .plain_unitalker import WIDTH, plain, released_state, with_encoder  # noqa: E402, TID252
from .released_files import TINY, beside_wav2sem, released_encoder  # noqa: E402, TID252


class TestFiles:
    """Official files, tiny where the size does not matter."""

    HEADS: ClassVar = {BIWI: 4, VOCASET: 150, ARKIT: 51, EMOTALK: 52}
    WAVEFORM_S = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) / 100

    @pytest.fixture
    def encoder(self, monkeypatch) -> EncoderConfig:
        """WavLM, tiny."""
        tiny = EncoderConfig(kind="wavlm", config=TINY)
        monkeypatch.setitem(official.ENCODERS, "B", tiny)
        return tiny

    @pytest.fixture
    def file(self, tmp_path, encoder) -> Path:
        state = with_encoder(released_state(self.HEADS, features=TINY["hidden_size"]), encoder)
        torch.save(state, tmp_path / "UniTalker-B.pt")
        return tmp_path / "UniTalker-B.pt"

    @staticmethod
    def pca_file(folder: Path, n_vertices: int, n_components: int) -> tuple[Path, Pca]:
        rng = np.random.default_rng(1)
        components_QX = np.linalg.qr(rng.normal(size=(3 * n_vertices, n_components)))[0].T
        spread_Q = 0.01 / (1 + np.arange(n_components))
        pca = Pca(components_QX, rng.normal(size=3 * n_vertices) / 1e3, 0.1 * spread_Q, spread_Q)
        np.savez(folder / "pca.npz", **dict(zip(PCA_ARRAYS, pca, strict=True)))
        return folder / "pca.npz", pca

    def values(
        self, state: dict, encoder: EncoderConfig, fps: int, style: int, head: str, waveform_S: np.ndarray = WAVEFORM_S
    ) -> np.ndarray:
        """What the released code predicts of a recording, written out."""
        backbone = build_backbone(encoder.kind, encoder.config).eval()
        prefix = "audio_encoder."
        backbone.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
        with torch.no_grad():
            hidden_1LD = backbone(torch.from_numpy(waveform_S)[None]).last_hidden_state
            n_frames = round(len(waveform_S) / 16_000 * fps)
            read = F.interpolate(hidden_1LD.mT, size=n_frames, mode="linear", align_corners=True).mT
        return plain(state, read[0], style, head)

    def test_the_arkit_head_drives_arkit_keys(self, file, encoder, tmp_path) -> None:
        notes: list[Text] = []
        pca_file, _ = self.pca_file(tmp_path, 4, 6)
        import_official(file, "auto", tmp_path / "model", notes, [pca_file])
        assert [str(note) for note in notes] == [
            "pca.npz was not used: UniTalker's ARKit weights need no other file. For another head, choose its kind."
        ]
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        config, state = animator.folder.config, torch.load(file, weights_only=True)
        assert config.styles == ("pivot", "1", "2", "3", "4") and animator.folder.basis() is None
        for style, row in (("pivot", -1), ("3", 2)):
            motion = animator.animate(self.WAVEFORM_S, 16_000, style)
            expected_TK = self.values(state, encoder, 30, row, ARKIT)
            np.testing.assert_allclose(motion.weights_TK, expected_TK, atol=2e-4)
        assert motion.fps == 30 and motion.channels == ARKIT_ORDER and motion.weights_TK.std() > 0.1
        keys = guess_key_map(ARKIT_CHANNELS)
        assert set(ARKIT_ORDER) <= set(keys.channels)
        import_official(file, "unitalker-emotalk", tmp_path / "model")
        motion = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu").animate(self.WAVEFORM_S, 16_000)
        assert motion.channels == CHANNELS[EMOTALK]
        np.testing.assert_allclose(motion.weights_TK, self.values(state, encoder, 30, -1, EMOTALK), atol=2e-4)

    @pytest.mark.parametrize(("kind", "head", "fps", "n_vertices"), [
        ("unitalker-vocaset", VOCASET, 30, 5023), ("unitalker-biwi", BIWI, 25, 23370)
    ])  # fmt: skip
    def test_the_components_of_vertices_become_keys(self, file, encoder, tmp_path, kind, head, fps, n_vertices) -> None:
        pca_file, pca = self.pca_file(tmp_path, n_vertices, self.HEADS[head] + 2)
        import_official(file, kind, tmp_path / "model", beside=[pca_file])
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        motion = animator.animate(self.WAVEFORM_S, 16_000, "2")
        n_keys, width = min(128, self.HEADS[head]), self.HEADS[head]
        config = animator.folder.config
        scale = 0.2 if head == BIWI else 1.0
        assert motion.fps == fps and motion.channels == (*(f"key_{i:02d}" for i in range(n_keys)), "bias")
        # Components beyond the keys stay at their mean.
        values_TP = self.values(torch.load(file, weights_only=True), encoder, fps, 1, head)
        values_TP[:, n_keys:] = pca.centre_Q[n_keys:width]
        expected_TX = (values_TP @ pca.components_QX[:width] + pca.mean_X) / scale
        found_TX = motion.vertex_offsets().reshape(len(expected_TX), -1)
        np.testing.assert_allclose(found_TX, expected_TX, atol=1e-4 * np.abs(expected_TX).max())
        lost_V = (pca.spread_Q[n_keys:width, None] * pca.components_QX[n_keys:width]) ** 2
        error = np.sqrt(lost_V.sum(0).reshape(-1, 3).sum(1).max()) if n_keys < width else 0.0
        assert config.provenance.get("keys_error", 0.0) == pytest.approx(error, rel=1e-3)

    def test_flames_parameters_move_the_users_flame(self, file, encoder, tmp_path) -> None:
        rng = np.random.default_rng(2)
        shapes = {"v_template": (30, 3), "shapedirs": (30, 3, 400), "posedirs": (30, 3, 36), "J_regressor": (5, 30)}
        arrays = {name: 0.001 * rng.standard_normal(shape) for name, shape in shapes.items()}
        arrays["v_template"] *= 100
        arrays["weights"] = rng.dirichlet(np.ones(5), 30)
        np.savez(tmp_path / "flame.npz", **arrays)
        state = torch.load(file, weights_only=True)
        state |= {
            f"out_head_dict.{FLAME_PARAMETERS}.{name}": value
            for name, value in (("weight", 0.03 * torch.randn(413, WIDTH)), ("bias", 0.03 * torch.randn(413)))
        }
        torch.save(state, file)
        with pytest.raises(UserError, match="it needs your FLAME as .npz for unitalker-flame too"):
            import_official(file, "unitalker-flame", tmp_path / "model")
        import_official(file, "unitalker-flame", tmp_path / "model", beside=[tmp_path / "flame.npz"])
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        motion = animator.animate(self.WAVEFORM_S, 16_000)
        parameters_TX = self.values(state, encoder, 30, -1, FLAME_PARAMETERS)
        moving_TX = parameters_TX[:, 300:403]
        flame = Flame.read(tmp_path / "flame.npz", 100)
        expected_TV3 = flame.vertices(moving_TX, np.zeros(300)) - flame.template_V3
        off_TV3 = motion.vertex_offsets() - expected_TV3
        # What is lost are products of an expression and a turn.
        assert np.sqrt(np.square(off_TV3).mean()) < 0.05 * np.sqrt(np.square(expected_TV3).mean())
        assert motion.channels[99:101] == ("flame_expression_100", "flame_jaw_x") and len(motion.channels) == 109
        np.testing.assert_allclose(motion.weights_TK[:, :100], moving_TX[:, :100] / 3, atol=1e-4)
        (written,) = official.write(animator.folder).values()
        assert written.keys() == state.keys() and all(torch.equal(written[key], state[key]) for key in state)

    @pytest.mark.parametrize("kind", ["unitalker-arkit", "unitalker-biwi"])
    def test_every_head_goes_back_into_the_file(self, file, tmp_path, kind) -> None:
        pca_file, pca = self.pca_file(tmp_path, 23370, 6)
        import_official(file, kind, tmp_path / "model", beside=[pca_file])
        (tmp_path / "out").mkdir()
        written = export_official(ModelFolder.open(tmp_path / "model"), tmp_path / "out")
        back, state = torch.load(written[0], weights_only=True), torch.load(file, weights_only=True)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], state[key]) for key in state)
        if kind == "unitalker-biwi":
            with np.load(written[1]) as stored:
                np.testing.assert_allclose(stored["components_to_data"], pca.components_QX[:4], atol=1e-6)
        assert [path.name for path in written] == ["UniTalker-B.pt", "pca.npz"][: len(written)]

    def test_a_file_of_ones_own_training_holds_its_pca(self, file, encoder, tmp_path) -> None:
        _, pca = self.pca_file(tmp_path, 23370, 6)
        state = torch.load(file, weights_only=True)
        names = ("feat_to_data", "data_bias", "feat_mean", "feat_std")
        for name, array in zip(names, pca, strict=True):
            state[f"pca_layer_dict.{BIWI}.{name}"] = torch.from_numpy(array).float()
        torch.save(state, tmp_path / "own.pt")
        import_official(tmp_path / "own.pt", "unitalker-biwi", tmp_path / "model")
        basis_KV3 = ModelFolder.open(tmp_path / "model").basis()
        expected_X = 3 * pca.spread_Q[0] * pca.components_QX[0] / 0.2
        np.testing.assert_allclose(basis_KV3[0].ravel(), expected_X, atol=1e-6)

    @pytest.mark.parametrize("large", [False, True], ids=["B", "L"])
    def test_a_wav2sem_beside_it_comes_along(self, tmp_path, monkeypatch, large: bool) -> None:
        """The encoder's weights may have the names of earlier releases of torch, as the Wav2Sem's."""
        sizes = {**XLSR_53, **TINY, "hidden_size": 24} if large else TINY
        encoder = EncoderConfig(kind="wav2vec2" if large else "wavlm", config=sizes)
        monkeypatch.setitem(official.ENCODERS, "L" if large else "B", encoder)
        state = released_state({ARKIT: 51}, features=sizes["hidden_size"])
        fused = beside_wav2sem(monkeypatch, sizes["hidden_size"])
        torch.save(state | fused | released_encoder(encoder.kind, sizes), tmp_path / "fused.pt")
        import_official(tmp_path / "fused.pt", "auto", tmp_path / "model")
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        assert animator.folder.config.wav2sem is not None
        motions = [animator.animate(self.WAVEFORM_S, 16_000, semantic_strength=strength) for strength in (0.0, 1.0)]
        assert np.abs(motions[1].weights_TK - motions[0].weights_TK).max() > 1e-3
        (written,) = export_official(animator.folder, tmp_path)
        back = torch.load(written, weights_only=True)
        for name, value in (state | fused).items():
            assert torch.equal(back[name], value), name
        assert not any("weight_g" in name for name in back if name.startswith("audio_encoder."))
        del fused["bert_feature_map.weight"]
        torch.save(state | fused | released_encoder(encoder.kind, sizes), tmp_path / "half.pt")
        with pytest.raises(UserError, match="half.pt: the key bert_feature_map.weight is missing"):
            import_official(tmp_path / "half.pt", "auto", tmp_path / "half")

    def test_what_does_not_fit_is_named(self, file, tmp_path, monkeypatch) -> None:
        state = torch.load(file, weights_only=True)
        pca_file, _ = self.pca_file(tmp_path, 5023, 100)
        cases = [
            ("unitalker-vocaset", [], "it needs the pca.npz of unitalker-vocaset too"),
            ("unitalker-biwi", [pca_file], r"components have the shape \(100, 15069\); at least 4 of 70110 values"),
            ("unitalker-vocaset", [pca_file], r"\(100, 15069\); at least 150 of 15069 values"),
        ]
        for kind, beside, message in cases:
            with pytest.raises(UserError, match=message):
                import_official(file, kind, tmp_path / "model", beside=beside)
        np.savez(tmp_path / "other.npz", mean=np.zeros(3))
        with pytest.raises(UserError, match=r"other.npz: no pca.npz of UniTalker's release"):
            import_official(file, "unitalker-vocaset", tmp_path / "model", beside=[tmp_path / "other.npz"])
        monkeypatch.setitem(official.ENCODERS, "B", EncoderConfig(kind="wavlm", config={**TINY, "hidden_size": 24}))
        with pytest.raises(UserError, match=r"shape .*16.*, .*24.* is expected"):
            import_official(file, "unitalker-arkit", tmp_path / "model")
        torch.save({key: value for key, value in state.items() if ".norm." not in key}, file)
        with pytest.raises(UserError, match=r"UniTalker-B.pt: the weight tcn.*norm.* is missing"):
            import_official(file, "unitalker-arkit", tmp_path / "model")
        torch.save({key: value for key, value in state.items() if ARKIT not in key}, file)
        with pytest.raises(UserError, match=f"the key out_head_dict.{ARKIT}.weight is missing"):
            import_official(file, "unitalker-arkit", tmp_path / "model")

    def test_a_large_file_is_told_by_its_encoder(self, tmp_path, monkeypatch) -> None:
        """And a long recording is cut into windows of 25 s that are normalised, counted and decoded one by one."""
        large = EncoderConfig(kind="wav2vec2", config={**XLSR_53, **TINY})
        monkeypatch.setitem(official.ENCODERS, "L", large)
        state = with_encoder(released_state({ARKIT: 51}, features=16), large)
        torch.save(state, tmp_path / "UniTalker-L.pt")
        import_official(tmp_path / "UniTalker-L.pt", "auto", tmp_path / "model")
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        assert animator.folder.config.encoder == large
        louder_S = np.linspace(0.05, 0.4, 47 * 16_000 + 300, dtype=np.float32)
        waveform_S = louder_S * np.random.default_rng(0).standard_normal(len(louder_S)).astype(np.float32)
        fade_F1 = np.linspace(1, 0, 150)[:, None]
        expected_TK = None
        for start_s in (0, 20, 40):
            part_S = waveform_S[start_s * 16_000 : (start_s + 25) * 16_000]
            part_S = (part_S - part_S.mean()) / part_S.std()
            part_TK = self.values(state, large, 30, -1, ARKIT, part_S)
            if expected_TK is None:
                expected_TK = part_TK
                continue
            faded_FK = fade_F1 * expected_TK[-150:] + (1 - fade_F1) * part_TK[:150]
            expected_TK = np.concatenate([expected_TK[:-150], faded_FK, part_TK[150:]])
        done: list[float] = []
        progress = lambda stage, fraction: done.append(fraction) if stage == "motion" else None  # noqa: E731
        motion = animator.animate(waveform_S, 16_000, progress=progress)
        np.testing.assert_allclose(motion.weights_TK, expected_TK, atol=2e-4)
        assert motion.n_frames == round(len(waveform_S) / 16_000 * 30) and done[-1] == 1.0 and len(done) > 2

    def test_a_released_file_of_full_size_comes_back_whole(self, tmp_path) -> None:
        heads = {name: head.width for name, head in HEADS.items()}
        state = with_encoder(released_state(heads, 256, 768, 64, len(STYLES)), official.ENCODERS["B"])
        torch.save(state, tmp_path / "UniTalker-B-D0-D7.pt")
        import_official(tmp_path / "UniTalker-B-D0-D7.pt", "unitalker-arkit", tmp_path / "model")
        folder = ModelFolder.open(tmp_path / "model")
        assert folder.config.styles[:2] == ("pivot", "D0-1") and folder.config.styles[-1] == "D7-11"
        assert folder.config.host == RELEASES["unitalker-arkit"].host
        back = official.write(folder)["UniTalker-B-D0-D7.pt"]
        assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)


def test_keys_of_flame_come_from_the_head_on_flames_parameters_alone() -> None:
    """Found by the fuzzer: another head has no parameters to make keys of."""
    for head, width in (("inhouse_blendshape_weight", 51), ("flame_params_from_dadhead", 100)):
        with pytest.raises(UserError, match="flame_keys is for the head flame_params_from_dadhead alone"):
            UniTalker(head=head, heads=((head, width),), flame_keys=True)
