# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of every host, with random weights, in the real worker with torch; and how long a run will take."""

import json
import os
import time

import bpy
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import soundfile  # noqa: E402

from tests.blender.test_panels import drawn  # noqa: E402
from trainer.experiments import known  # noqa: E402
from trainer.experiments.hosts import TOY_ENCODER  # noqa: E402
from wav2sem_blender.assets import DEFAULT_MODEL, DEMO_SPEECH  # noqa: E402
from wav2sem_blender.blender.animate import estimate, jobs  # noqa: E402
from wav2sem_blender.blender.scene.demo_head import build_demo_head  # noqa: E402
from wav2sem_blender.blender.tasks.task import running_task  # noqa: E402
from wav2sem_blender.blender.ui import panels  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator, given_features  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig, ModelFolder, save_model  # noqa: E402
from wav2sem_blender.pipeline.cost import flops  # noqa: E402
from wav2sem_blender.pipeline.flame_parameters import N_EXPRESSIONS, N_PARAMETERS, N_SHAPES, Flame  # noqa: E402
from wav2sem_blender.pipeline.hosts import HOSTS  # noqa: E402
from wav2sem_blender.pipeline.hosts.faceformer_channels import FaceFormerChannels  # noqa: E402
from wav2sem_blender.pipeline.hosts.unitalker import UniTalker  # noqa: E402
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS  # noqa: E402
from wav2sem_blender.pipeline.nn.face_model import FaceModel  # noqa: E402
from wav2sem_blender.pipeline.official import save_on_keys  # noqa: E402
from wav2sem_blender.pipeline.retarget import covering, rested  # noqa: E402

N_VERTICES, DURATION_S = 5023, 1.2
RNG = np.random.default_rng(0)
# The hosts whose motion is on ARKit's channels; all others make their own keys on FLAME.
ARKIT = {"faceformer_channels": FaceFormerChannels(), "unitalker-arkit": UniTalker(dim=16, style_dim=4)}
KINDS = (*HOSTS, "unitalker-arkit", "voca-file")


def smoke_of(kind: str):
    """The smoke experiment of a host on vertices."""
    return known("finetune")["smoke" if kind == "faceformer" else f"{kind}_smoke"]()


def random_model(kind: str, folder) -> ModelFolder:
    """A model of a host at the size of its smoke experiment."""
    torch.manual_seed(0)
    host, encoder, emotion, n_outputs = ARKIT.get(kind), TOY_ENCODER, None, 3 * N_VERTICES
    if host is None:
        recipe = smoke_of(kind.removesuffix("-file"))
        host, encoder, emotion = recipe.host, recipe.encoder, recipe.emotion
    if kind == "voca-file":
        encoder = given_features.encoder("DeepSpeech's logits", 29, stand_in=False)
    if kind in ("probtalk3d", "lsf"):
        n_outputs = N_PARAMETERS
    styles = host.styles_of(tuple(f"speaker_{i}" for i in range(8)))
    config = ModelConfig(
        name=kind,
        encoder=encoder,
        wav2sem=None,
        host=host,
        channels=ARKIT_CHANNELS if kind == "faceformer_channels" else host.channels if kind in ARKIT else (),
        styles=styles,
        emotion=emotion,
    )
    model = FaceModel(config, None if kind in ARKIT else n_outputs).eval()
    for values in model.decoder.parameters():
        if not values.any():  # some heads start at zero
            torch.nn.init.normal_(values, std=1e-2)
    if kind == "faceformer_channels":
        state = {name: value.numpy() for name, value in model.state_dict().items()}
        return save_model(folder, config, state)
    model.decoder.prepare(lambda n_frames: RNG.normal(0, 1e-3, (min(n_frames, 40), n_outputs)).astype(np.float32))
    if n_outputs == N_PARAMETERS:
        model.decoder.flame = made_up_flame()
    return save_on_keys(folder, config, model)


def made_up_flame() -> Flame:
    def moved(*shape: int) -> np.ndarray:
        return RNG.normal(0, 1e-3, (N_VERTICES, *shape))

    return Flame(
        template_V3=moved(3),
        shapes_V3S=np.zeros((N_VERTICES, 3, N_SHAPES)),
        expressions_V3E=moved(3, N_EXPRESSIONS),
        jaw_poses_V39=moved(3, 9),
        jaw_weight_V=RNG.random(N_VERTICES),
        joint_V=np.full(N_VERTICES, 1 / N_VERTICES),
    )


@pytest.fixture(scope="module", autouse=True)
def one_worker(registered, tmp_path_factory):
    """It needs seconds to load torch. Blender's temporary folder, and with it the worker, changes with every file."""
    kept, jobs._session_folder = jobs._session_folder, lambda: tmp_path_factory.mktemp("worker")
    yield
    jobs._session_folder = kept
    jobs.shut_down()


@pytest.fixture
def recording(tmp_path):
    """A second of speech, and beside it the features that some hosts read."""
    samples_S, rate_hz = soundfile.read(DEMO_SPEECH, stop=round(DURATION_S * 16_000))
    soundfile.write(tmp_path / "speech.wav", samples_S, rate_hz)
    text_LE = RNG.normal(size=(round(DURATION_S * 50), 24)).astype(np.float32)
    np.save(tmp_path / "speech.text.npy", text_LE)
    np.save(tmp_path / "speech.npy", RNG.normal(size=(round(DURATION_S * 50), 29)).astype(np.float32))
    return tmp_path / "speech.wav"


@pytest.fixture
def head_for(request):
    """A head that a model of a kind animates."""

    def head(kind: str):
        return build_demo_head() if kind in ARKIT else request.getfixturevalue("flame_head")

    return head


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_every_host_animates_a_head(kind, head_for, recording, tmp_path, curves_of):
    """The keys of a FLAME mesh, or those of a head with ARKit's, get the motion that the pipeline makes."""
    folder, head = random_model(kind, tmp_path / "model"), head_for(kind)
    bpy.context.scene.render.fps = round(folder.config.host.grid.fps)
    given = {"filepath": str(recording), "object": head.name, "model": str(folder.path), "engine": "torch"}
    assert bpy.ops.wav2sem.animate(**given) == {"FINISHED"}
    motion = SpeechAnimator.load(folder.path, engine="torch", device="cpu").animate_file(recording)
    motion = rested(covering(motion))
    curves = curves_of(head)
    if kind not in ARKIT:
        assert head.data.shape_keys.key_blocks.keys()[1:] == list(motion.channels)
    assert set(curves) <= set(motion.channels) and len(curves) >= 4
    moved = 0.0
    for channel, (frames_T, values_T) in curves.items():
        weights_T = motion.weights_TK[:, motion.channels.index(channel)]
        assert frames_T[0] == 1
        np.testing.assert_allclose(values_T, weights_T, atol=1e-4)
        moved = max(moved, float(np.ptp(values_T)))
    assert moved > 1e-5, "the face stands still"


def test_a_run_of_a_host_is_cancelled_without_a_trace(flame_head, recording, tmp_path, scene_bytes):
    folder, before = random_model("facediffuser", tmp_path / "model"), scene_bytes()
    settings = jobs.AnimateSettings(filepath=str(recording), object_name="Head", model=str(folder.path), engine="torch")
    job = jobs.Job(bpy.context, settings)
    while job.title == "Starting":
        assert not job.poll()
        time.sleep(0.01)
    assert bpy.ops.wav2sem.cancel() == {"FINISHED"}
    assert running_task() is None and scene_bytes() == before


def test_features_are_looked_for_beside_the_users_own_file(flame_head, recording, tmp_path, scene_bytes):
    """Not beside what Blender decodes of it for the worker."""
    model, before = str(random_model("voca-file", tmp_path / "model").path), scene_bytes()
    recording.with_suffix(".npy").unlink()
    with pytest.raises(RuntimeError, match=rf"{recording.with_suffix('.npy')}: missing"):
        bpy.ops.wav2sem.animate(filepath=str(recording), model=model, object="Head", range_start_s=0.5)
    assert scene_bytes() == before


def test_a_part_of_a_recording_has_its_part_of_the_features(flame_head, recording, tmp_path, curves_of):
    """VOCA looks 8 frames of 60 a second to either side; farther in, the part moves as the whole does."""
    model = str(random_model("voca-file", tmp_path / "model").path)
    bpy.context.scene.render.fps = 60
    bpy.ops.wav2sem.animate(filepath=str(recording), model=model, object="Head")
    whole_T = curves_of(flame_head)["key_00"][1]
    bpy.ops.wav2sem.animate(filepath=str(recording), model=model, object="Head", range_start_s=0.6)
    frames_T, part_T = curves_of(flame_head)["key_00"]
    assert frames_T[0] == 1 + 36 and np.ptp(part_T) > 1e-5
    np.testing.assert_allclose(part_T[8:-15], whole_T[36 + 8 :][: len(part_T) - 23], atol=1e-6)


class TestTheEstimate:
    """Before a run the panel says how long it will take; after one, it knows this machine."""

    @pytest.fixture
    def full_size(self, tmp_path, monkeypatch):
        """FaceFormer as published, of which only config.json is here."""
        monkeypatch.setattr(estimate, "_measured", {})
        monkeypatch.setattr(os, "cpu_count", lambda: 4)
        host = known("finetune")["vocaset"]().host
        encoder = EncoderConfig(kind="wav2vec2", config={})
        config = ModelConfig(name="big", encoder=encoder, wav2sem=None, host=host, channels=("a",), styles=("b",))
        (tmp_path / "big").mkdir()
        (tmp_path / "big" / "config.json").write_text(json.dumps({"model": config.to_json()}))
        return tmp_path / "big", config

    def seconds(self, model, duration_s: float, device: str = "auto") -> float:
        return estimate.run_seconds(bpy.context, str(model), device, duration_s)

    def test_it_is_the_operations_over_the_machines_speed(self, full_size):
        folder, config = full_size
        a_minute = flops(config, 60.0)
        assert 6e11 < a_minute < 8e11, "11 GFLOP for a second"
        assert self.seconds(folder, 60.0) == pytest.approx(estimate._START_S + a_minute / 1e11, rel=1e-3)
        assert self.seconds(folder, 600.0) - self.seconds(folder, 60.0) > 8 * a_minute / 1e11
        assert self.seconds(folder, 60.0, "cuda") < self.seconds(folder, 60.0)
        (folder / "model.safetensors").write_bytes(bytes(3_000_000))
        assert self.seconds(folder, 60.0, "cuda") > estimate._START_S + 0.01

    def test_a_run_teaches_it_the_speed(self, full_size):
        folder, _ = full_size
        estimate.learn(bpy.context, str(folder), "auto", 10.0, 50.0)
        assert self.seconds(folder, 10.0) == pytest.approx(50.0)
        assert 5 * 50 < self.seconds(folder, 60.0) < 7 * 50
        assert self.seconds(folder, 10.0, "cuda") < 50.0, "of another device it learnt nothing"

    def test_every_host_is_counted(self):
        for kind in HOSTS:
            host = ARKIT.get(kind) or smoke_of(kind).host
            assert 0 < host.flops(30) < host.flops(300), kind

    def test_the_words_are_rough(self):
        assert [str(estimate.rough_words(seconds)) for seconds in (0.2, 6.6, 17, 53, 80, 1000)] == [
            *("1 s", "7 s", "15 s", "55 s", "1 min", "17 min")
        ]

    def test_the_panel_says_it_before_the_run_starts(self, full_size, head, recording):
        chosen = bpy.context.scene.wav2sem
        chosen.model = str(full_size[0])
        assert not any("takes about" in row[1] for row in drawn(panels.WAV2SEM_PT_animate)), "no sound is chosen"
        chosen.filepath = str(recording)
        assert ("label", "This takes about 4 s", True) in drawn(panels.WAV2SEM_PT_animate)
        estimate.learn(bpy.context, chosen.model, "auto", DURATION_S, 200.0)
        assert ("label", "This takes about 3 min", True) in drawn(panels.WAV2SEM_PT_animate)
        chosen.use_range, chosen.range_start_s = True, DURATION_S / 2
        assert ("label", "This takes about 2 min", True) in drawn(panels.WAV2SEM_PT_animate)

    @pytest.mark.skipif(not DEFAULT_MODEL.is_dir(), reason="needs the bundled model")
    def test_a_real_run_is_remembered(self, recording, monkeypatch):
        monkeypatch.setattr(estimate, "_measured", {})
        head = build_demo_head()
        assert bpy.ops.wav2sem.animate(filepath=str(recording), object=head.name) == {"FINISHED"}
        ((key, speed),) = estimate._measured.items()
        assert key == (DEFAULT_MODEL / "config.json", "auto") and 1e7 < speed < 1e13

    def test_a_model_that_cannot_be_read_has_none(self, full_size):
        (full_size[0] / "config.json").write_text("{")
        assert self.seconds(full_size[0], 10.0) is None
        assert self.seconds("nowhere", 10.0) is None
