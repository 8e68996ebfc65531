# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundled model's recipe with one ear, at toy size: Whisper's weights from a CTranslate2 file, phones, a student,
sentence vectors of the ear's features, the face, and the 8-bit graph."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import WhisperConfig, WhisperModel  # noqa: E402
from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: E402

from tests.trainer.miniature_prepared import write_prepared  # noqa: E402
from trainer.experiments import hubert, wav2sem  # noqa: E402
from trainer.experiments.export import bundled  # noqa: E402
from trainer.experiments.face import bundled_smoke, forced_smoke  # noqa: E402
from trainer.loops import finetune_forced  # noqa: E402
from trainer.loops.export import export  # noqa: E402
from trainer.loops.finetune import finetune  # noqa: E402
from trainer.loops.finetune_channels import build_model  # noqa: E402
from trainer.loops.finetune_forced import drawn_spans, exchanged  # noqa: E402
from trainer.loops.pretrain import pretrain  # noqa: E402
from trainer.loops.pretrain_hubert import (  # noqa: E402
    PhoneRecogniser,
    PhoneTask,
    begin_with_whisper,
    parameter_groups,
    pretrain_hubert,
    read_teacher,
)
from trainer.loops.recipes import MaskedPhones  # noqa: E402
from trainer.motion.phoneme_driven import PhonesToMotion  # noqa: E402
from trainer.runs.run import Run  # noqa: E402
from trainer.speech import sentences, whisper  # noqa: E402
from trainer.speech.phones import PHONES  # noqa: E402
from trainer.speech.prepared import SpeechStore  # noqa: E402
from wav2sem_blender.assets import DEFAULT_MODEL  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelFolder, save_model  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402
from wav2sem_blender.pipeline.words.track import Phone, Track  # noqa: E402

CHANNELS = ModelFolder.open(DEFAULT_MODEL).config.channels
SIZES = {"d_model": 16, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
PUBLISHED = WhisperConfig(num_mel_bins=80, encoder_layers=3, **SIZES)
TASK = MaskedPhones(corpus_weights={"grid_s1": 1.0}, batch=2, crop_s=(0.5, 0.8), fps=50, mask_chance=0.0)
EAR = replace(
    hubert.ear(),
    encoder=EncoderConfig(kind="whisper", config=SIZES | {"encoder_layers": 2, "hidden_size": 12, "dropout": 0.0}),
    task=TASK,
    steps=4,
    warmup_steps=1,
    precision="no",
)
READER = {"feature_size": 12, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "stride": 4}
SHARED = replace(
    wav2sem.shared(), encoder_config=READER, corpora=(), versions=1, batch=2, steps=3, warmup_steps=1,
    validate_every=0, precision="no",
)  # fmt: skip
SPOKEN = [("AA", 0.1, 0.4), ("B", 0.4, 0.5), ("SIL", 0.5, 1.0)]
SPEECH = np.random.default_rng(3).standard_normal(24_000).astype(np.float32)
NAMES = {"q_proj": "q", "k_proj": "k", "v_proj": "v"}


def published_encoder() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return WhisperEncoder(PUBLISHED).state_dict()


def write_ctranslate2(path: Path, state: dict[str, torch.Tensor]) -> None:
    """As CTranslate2's converter lays a Whisper out: query, key and value in one, gains as gamma and beta."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    arrays = {f"encoder/{n}/{p}": state[f"{n}.{p}"] for n in ("conv1", "conv2") for p in ("weight", "bias")}
    gains = {"gamma": "weight", "beta": "bias"}
    arrays |= {f"encoder/layer_norm/{ours}": state[f"layer_norm.{theirs}"] for ours, theirs in gains.items()}
    for i in range(PUBLISHED.encoder_layers):
        here, there = f"encoder/layer_{i}", f"layers.{i}"
        for ours, theirs in (("self_attention", "self_attn_layer_norm"), ("ffn", "final_layer_norm")):
            arrays |= {f"{here}/{ours}/layer_norm/{g}": state[f"{there}.{theirs}.{p}"] for g, p in gains.items()}
        for ours, theirs in (("self_attention/linear_1", "self_attn.out_proj"), ("ffn/linear_0", "fc1")):
            arrays |= {f"{here}/{ours}/{p}": state[f"{there}.{theirs}.{p}"] for p in ("weight", "bias")}
        arrays |= {f"{here}/ffn/linear_1/{p}": state[f"{there}.fc2.{p}"] for p in ("weight", "bias")}
        for part in ("weight", "bias"):
            qkv = [state.get(f"{there}.self_attn.{name}.{part}", torch.zeros(16)) for name in NAMES]
            arrays[f"{here}/self_attention/linear_0/{part}"] = torch.cat(qkv)
    arrays |= {"encoder/num_heads": torch.tensor(2.0), "decoder/layer_norm/gamma": torch.ones(16)}
    content = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, tensor in arrays.items():
        array = tensor.numpy()
        content += text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        content += struct.pack("<BI", 0, array.nbytes) + array.tobytes()
    path.write_bytes(content)


@pytest.fixture(scope="module", autouse=True)
def _no_hub(tmp_path_factory):
    """No hub, a Whisper base that a toy replaces, and text vectors that need no text model."""
    file = tmp_path_factory.mktemp("ctranslate2") / "model.bin"
    write_ctranslate2(file, published_encoder())

    def nowhere(*arguments, **options):
        raise OSError("no hub here")

    def embed(texts):
        return np.stack([np.random.default_rng(len(text)).standard_normal(6) for text in texts]).astype(np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAV2SEM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(WhisperModel, "from_pretrained", nowhere)
        patch.setattr(whisper, "whisper_model_file", lambda: file)
        patch.setattr(sentences, "_embedder", lambda *arguments: embed)
        yield file


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Prepared data, and a run of every stage up to the face."""
    root = tmp_path_factory.mktemp("work")
    write_prepared(root, CHANNELS, SPOKEN)
    train_ear(EAR, root, root / "ear")
    run = Run(root / "wav2sem", verb="pretrain", name="shared", config=SHARED, device="cpu")
    pretrain(SHARED, root, run, root / "ear")
    run.close()
    face = replace(bundled_smoke(), peak_lr=3e-2)
    run = Run(root / "face", verb="finetune", name="bundled_smoke", config=face, device="cpu")
    finetune(face, root, run, root / "ear", root / "wav2sem")
    run.close()
    return root


def train_ear(config, data: Path, out: Path, earlier: Path | None = None) -> dict[str, torch.Tensor]:
    run = Run(out, verb="pretrain-hubert", name="ear", config=config, device="cpu")
    pretrain_hubert(config, data, run, earlier)
    run.close()
    return torch.load(out / "encoder.pt", weights_only=True)


def test_a_ctranslate2_file_holds_transformers_weights() -> None:
    expected = published_encoder()
    state = whisper.published_whisper("openai/whisper-base")
    assert expected.keys() - state.keys() == {"embed_positions.weight"} and state.keys() <= expected.keys()
    for key, value in state.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)


@pytest.mark.parametrize("length", [0, 3, 20, 60, 2000, -1])
def test_a_cut_file_is_refused(_no_hub: Path, tmp_path: Path, length: int) -> None:
    cut = tmp_path / "cut.bin"
    cut.write_bytes(_no_hub.read_bytes()[:length])
    with pytest.raises(UserError, match=r"cut\.bin: not a whole CTranslate2 model .* remove it and try again"):
        whisper.read_ctranslate2(cut)


def test_whisper_that_is_nowhere_or_too_small_is_named() -> None:
    with pytest.raises(UserError, match=r"encoder 'mine': neither a folder nor a hub has it \(no hub here\)"):
        whisper.published_whisper("mine")
    larger = EncoderConfig(kind="whisper", config=dict(EAR.encoder.config) | {"encoder_layers": 4})
    with pytest.raises(UserError, match=r"openai/whisper-base: has no layers\.3\..* of the experiment's size"):
        begin_with_whisper(PhoneRecogniser(larger), "openai/whisper-base")


def test_pretrained_layers_learn_at_their_own_rate(work: Path) -> None:
    model = PhoneRecogniser(EAR.encoder)
    begin_with_whisper(model, EAR.pretrained)
    new, pretrained = parameter_groups(model, EAR)
    assert new["lr"] == EAR.peak_lr and pretrained["lr"] == pytest.approx(0.05 * EAR.peak_lr)
    assert len(new["params"]) == 4 + 2 and len(new["params"]) + len(pretrained["params"]) == len(
        list(model.parameters())
    )
    published, learnt = published_encoder(), torch.load(work / "ear" / "encoder.pt", weights_only=True)
    moved = {
        key: float((learnt[f"audio_encoder.{key}"] - value).abs().max())
        for key, value in published.items()
        if f"audio_encoder.{key}" in learnt
    }
    # AdamW moves a weight by about the rate in a step; the cosine's mean is about half.
    assert 0 < max(moved.values()) < 2 * EAR.steps * pretrained["lr"] and "conv1.weight" in moved
    assert max(moved.values()) < EAR.peak_lr


def test_a_rate_of_zero_leaves_the_published_layers(work: Path, tmp_path: Path) -> None:
    learnt = train_ear(replace(EAR, pretrained_rate=0.0, steps=2), work, tmp_path / "frozen")
    published = published_encoder()
    kept = [key for key in published if f"audio_encoder.{key}" in learnt]
    assert len(kept) == 4 + 2 + 2 * 15
    for key in kept:
        torch.testing.assert_close(learnt[f"audio_encoder.{key}"], published[key], rtol=0, atol=0)
    torch.manual_seed(EAR.seed)
    before = PhoneRecogniser(EAR.encoder).state_dict()
    assert (learnt["head.weight"] - before["head.weight"]).abs().max() > 1e-4


def test_the_ear_reports_on_who_was_not_heard(work: Path) -> None:
    described = json.loads((work / "ear" / "run.json").read_text())
    assert described["config"]["encoder"]["kind"] == "whisper" and described["config"]["pretrained_rate"] == 0.05
    assert not (work / "ear" / "encoder").exists(), "transformers has no such encoder"
    rows = [json.loads(line) for line in (work / "ear" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] > 1


def test_a_student_comes_to_hear_what_its_teacher_hears(work: Path, tmp_path: Path) -> None:
    """A teacher that hears L everywhere, against the labels: by weight 1 only the teacher counts."""
    config = replace(
        hubert.bundled_smoke(), task=replace(TASK, fps=30, teacher_weight=1.0, mask_chance=0.02), precision="no"
    )
    teacher = read_teacher(work / "ear")
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    with torch.no_grad():
        teacher.head.bias[PHONES.index("L")] += 12
    run = Run(tmp_path / "student", verb="pretrain-hubert", name="student", config=config, device="cpu")
    torch.manual_seed(0)
    task = PhoneTask(config, SpeechStore(work / "speech"), run, teacher)
    optimiser = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        loss, _ = task.loss(task.model, task.batch(step)[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    run.close()
    assert losses[0] == pytest.approx(np.log(len(PHONES)), abs=1.5) and losses[-1] < 0.5 < losses[0]
    labels = [PHONES.index(phone) for phone, _, _ in SPOKEN]
    heard_T = task._recognise(task._store.records[0])[0]
    assert (heard_T == PHONES.index("L")).mean() > 0.9 and PHONES.index("L") not in labels


def test_a_student_needs_its_teacher(work: Path, tmp_path: Path) -> None:
    config = replace(hubert.bundled_smoke(), task=replace(TASK, fps=30, teacher_weight=0.5))
    with pytest.raises(UserError, match="this experiment learns from a teacher: name its run by --hubert"):
        train_ear(config, work, tmp_path / "alone")
    learnt = train_ear(replace(config, precision="no"), work, tmp_path / "student", work / "ear")
    assert any(key.startswith("audio_encoder.feature_projection") for key in learnt), "it is a HuBERT still"
    described = json.loads((tmp_path / "student" / "run.json").read_text())
    assert described["hubert"] == str(work / "ear")


def test_sentence_vectors_are_learnt_from_the_ear(work: Path, tmp_path: Path) -> None:
    state = torch.load(work / "wav2sem" / "wav2sem.pt", weights_only=True)
    assert state["joined.weight"].shape == (8, 12, 4) and state["projection.bias"].shape == (6,)
    run = Run(tmp_path / "deaf", verb="pretrain", name="shared", config=SHARED, device="cpu")
    with pytest.raises(UserError, match="reads the features of an ear: name its run by --hubert"):
        pretrain(SHARED, work, run, None)
    run.close()


def test_the_whole_recipe_ends_in_an_8_bit_model_that_animates(work: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    out = export(bundled(), work / "face", tmp_path / "model")
    folder = ModelFolder.open(out)
    assert folder.has_onnx and folder.config.one_encoder and folder.config.wav2sem.shared
    assert folder.config.phones == tuple(PHONES) and folder.config.articulation == ("mumbled", "clear")
    assert folder.config.styles == ("natural", "clear", "mumbled", "artist") and folder.config.channels == CHANNELS
    for name in ("encoder.onnx", "semantic.onnx"):
        graph = onnx.load(out / name).graph
        operators = {node.op_type for node in graph.node}
        assert "MatMulInteger" in operators, "or a matrix has 32 bits still"
        assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in graph.initializer)
        assert b".py" not in (out / name).read_bytes()
    by_engine = [SpeechAnimator.load(out, engine=e, device="cpu").animate(SPEECH, 16_000) for e in ("onnx", "torch")]
    trained = SpeechAnimator.load(work / "face" / "model").animate(SPEECH, 16_000)
    assert trained.weights_TK.shape == (44, 27) and trained.weights_TK.std(0).max() > 1e-4
    for motion, tolerance in zip(by_engine, (0.03, 2e-3), strict=True):  # 8 bits; encoders in half precision
        np.testing.assert_allclose(motion.weights_TK, trained.weights_TK, atol=tolerance)
        np.testing.assert_allclose(motion.phones.posteriors_LP, trained.phones.posteriors_LP, atol=tolerance)
        assert motion.phones.posteriors_LP.shape == (74, len(PHONES))
    mumbled, clear = (
        SpeechAnimator.load(out, engine="onnx").animate(SPEECH, 16_000, articulation=a).weights_TK for a in (-1, 1)
    )
    assert np.abs(mumbled - clear).max() > 1e-4


def test_an_ear_and_a_wav2sem_that_do_not_fit_are_refused(work: Path, tmp_path: Path) -> None:
    encoder = hubert.bundled_smoke().encoder
    torch.manual_seed(0)
    recogniser = PhoneRecogniser(encoder).state_dict()
    apart = {"hubert": ("encoder.pt", recogniser), "wav2sem": ("wav2sem.pt", Wav2Sem(encoder.config, 6).state_dict())}
    described = {
        "hubert": {"encoder": {"kind": "hubert", "config": dict(encoder.config)}},
        "wav2sem": {"encoder_config": dict(encoder.config)},
    }
    for name, (file, state) in apart.items():
        (tmp_path / name).mkdir()
        torch.save(state, tmp_path / name / file)
        (tmp_path / name / "run.json").write_text(json.dumps({"config": described[name]}))
    for heard, told in ((work / "ear", tmp_path / "wav2sem"), (tmp_path / "hubert", work / "wav2sem")):
        with pytest.raises(UserError, match=f"--wav2sem {told} does not fit --hubert {heard}"):
            build_model(bundled_smoke(), CHANNELS, heard, told)
    assert build_model(bundled_smoke(), CHANNELS, tmp_path / "hubert", tmp_path / "wav2sem").phone_head is None


@pytest.fixture(scope="module", params=["face", "face/model"])
def steered(request, work: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("steered") / "run"
    run = Run(out, verb="finetune", name="forced_smoke", config=forced_smoke(), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        # The miniature faces are too few to learn from.
        patch.setattr(finetune_forced, "learn_driver", lambda *arguments: PhonesToMotion(len(CHANNELS)).eval())
        finetune(forced_smoke(), work, run, None, None, work / request.param)
    run.close()
    return out


class TestForcedPhones:
    def test_the_face_stays_as_it_was(self, work: Path, steered: Path) -> None:
        before, after = (ModelFolder.open(run / "model") for run in (work / "face", steered))
        old, new = before.tensors(), after.tensors()
        assert new.keys() - old.keys() == {f"forced.{n}.{p}" for n in "024" for p in ("weight", "bias")}
        for name, value in old.items():
            np.testing.assert_array_equal(new[name], value)
        assert after.config.provenance["forced"]["experiment"] == "forced_smoke"
        assert after.config.provenance["experiment"] == before.config.provenance["experiment"]

    def test_the_model_follows_a_track(self, steered: Path) -> None:
        animator = SpeechAnimator.load(steered / "model", engine="torch")
        plain = animator.animate(SPEECH, 16000)
        followed = animator.animate(SPEECH, 16000, track=Track(phones=(Phone("P", 0.5, 0.6),)))
        changed_T = np.abs(followed.weights_TK - plain.weights_TK).max(1)
        assert changed_T[15:18].max() > 0 and followed.track is not None

    def test_the_graphs_of_its_encoders_go_with_the_face(self, work: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(finetune_forced, "learn_driver", lambda *arguments: PhonesToMotion(len(CHANNELS)).eval())
        graphs = {name: DEFAULT_MODEL / name for name in ("encoder.onnx", "semantic.onnx")}
        face = ModelFolder.open(work / "face" / "model")
        save_model(tmp_path / "face", face.config, face.tensors(), graphs)
        run = Run(tmp_path / "run", verb="finetune", name="forced_smoke", config=forced_smoke(), device="cpu")
        finetune(forced_smoke(), work, run, None, None, tmp_path / "face")
        run.close()
        out = export(bundled(), tmp_path / "run", tmp_path / "exported")
        for name, graph in graphs.items():
            assert (out / name).read_bytes() == graph.read_bytes()

    def test_only_a_bundled_face_can_learn_it(self, work: Path, tmp_path: Path) -> None:
        run = Run(tmp_path / "run", verb="finetune", name="forced_smoke", config=forced_smoke(), device="cpu")
        with pytest.raises(UserError, match="give --prior, a `finetune bundled` run or a model folder"):
            finetune(forced_smoke(), work, run, None, None)
        run.close()

    def test_clips_that_are_too_short_are_named(self, work: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(finetune_forced, "learn_driver", lambda *arguments: PhonesToMotion(len(CHANNELS)).eval())
        run = Run(tmp_path / "run", verb="finetune", name="forced_smoke", config=forced_smoke(), device="cpu")
        with pytest.raises(UserError, match="no training clip with phone times has 99 frames"):
            finetune(replace(forced_smoke(), crop_frames=99), work, run, None, None, work / "face")
        run.close()

    def test_exchanged_phones_are_other_sounds(self) -> None:
        rng = np.random.default_rng(0)
        edited, spans_s = exchanged(SPOKEN, 0.5, rng)
        assert [timing[1:] for timing in edited] == [timing[1:] for timing in SPOKEN]
        changed = [i for i in range(3) if edited[i][0] != SPOKEN[i][0]]
        assert len(changed) == len(spans_s) == 1 and edited[changed[0]][0] != "SIL" and edited[2] == SPOKEN[2]
        assert exchanged([("SIL", 0.0, 1.0)], 0.5, rng) == ([("SIL", 0.0, 1.0)], [])

    def test_spans_are_forced_in_part_at_their_ends(self) -> None:
        drawn = [drawn_spans(40, 0.3, np.random.default_rng(seed)) for seed in range(40)]
        assert any((forced_T == 1).all() for forced_T in drawn)
        assert any(((forced_T > 0) & (forced_T < 1)).any() for forced_T in drawn)
        assert all(forced_T.min() >= 0 and forced_T.max() <= 1 for forced_T in drawn)
