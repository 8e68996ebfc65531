# SPDX-License-Identifier: GPL-3.0-or-later
"""The configurations of `finetune` and `export`. No torch here: `--help` imports this module."""

from __future__ import annotations

from dataclasses import dataclass

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.checkpoint import EncoderConfig
from wav2sem_blender.pipeline.hosts.faceformer import FaceFormer
from wav2sem_blender.pipeline.hosts.faceformer_channels import FaceFormerChannels, FaceWeights
from wav2sem_blender.pipeline.hosts.protocol import Host

from ..speech.augmentation import Augmentation

SEMANTICS = ("none", "constant", "shuffled", "wav2sem", "text")


@dataclass(frozen=True, kw_only=True)
class FinetuneVertices:
    """A host on vertices, as FaceFormer was published where no attribute says otherwise.

    The encoder's CNN is frozen and the rest of it is trained; a Wav2Sem is frozen whole. Whether that learnt BERT's CLS
    or its mean is a property of the Wav2Sem that `--wav2sem` names.

    Attributes:
        data: Layout of --data: "vocaset" (or "vocaset_60", with all frames of its camera), "biwi" or "custom".
        host: The face model; its frame rate becomes that of the data.
        encoder: Its kind and, if it starts from nothing, its size. `pretrained` and --hubert bring their own size.
        pretrained: Folder or hub name of the encoder's weights, such as "facebook/wav2vec2-base-960h". "" starts from
            nothing, for tests, unless --hubert names a run.
        semantics: Fuse the Wav2Sem of --wav2sem.
        frozen_layers: How many of the encoder's first layers are not trained; with any, its projection is not either.
        closures: Give the host the weights of frames with closed lips (`datasets/closures.py`).
        train_splits: Names of the splits that are learnt; "valid" is then no longer held out.
        weight_decay: Of AdamW; 0 is Adam.
        betas, epsilon: Of Adam.
        emotion: The second encoder, of a host that hears emotions.
        emotion_weights: Its weights: emotion2vec's own file in the folder of --data; of another kind as `pretrained`.
        frozen_epochs: So long, the encoder learns nothing; then the optimiser forgets what it knows.
        mask_share, mask_frames, min_masks: SpecAugment in time: spans of `mask_frames` over this share of the frames,
            at least `min_masks` of them; `mask_share` 0 switches it off.
        valid_clips: How many held-out clips, at most, are measured after each epoch.
        license: Of the trained weights, for the model's config.json.
    """

    data: str
    encoder: EncoderConfig
    host: Host = FaceFormer()
    pretrained: str = ""
    semantics: bool = False
    frozen_layers: int = 0
    closures: bool = False
    train_splits: tuple[str, ...] = ("train",)
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    emotion: EncoderConfig | None = None
    emotion_weights: str = ""
    frozen_epochs: int = 0
    mask_share: float = 0.05
    mask_frames: int = 10
    min_masks: int = 2
    epochs: int = 100
    batch: int = 1
    learning_rate: float = 1e-4
    valid_clips: int = 1000
    license: str = ""
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.min_masks, self.mask_frames) < 1 or not 0 <= self.mask_share < 1:
            raise UserError("epochs, batch, min_masks and mask_frames must be at least 1, mask_share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class AdaptActor:
    """A model of Imitator adapted to one actor: first the style is learnt, then the style and the last layer.

    The released settings are for debugging, so how long to train is our choice.

    Attributes:
        data: Layout of --data.
        subject: The actor; "" is the only one of the data.
        start_style: The training subject whose style is the first guess, and whose place the actor takes.
        train_clips, valid_clips: How many clips, in the data's order, are learnt, and how many after them held out.
        epochs: Of the two stages.
    """

    data: str
    subject: str = ""
    start_style: str = "FaceTalk_170725_00137_TA"
    train_clips: int = 4
    valid_clips: int = 2
    epochs: tuple[int, int] = (300, 300)
    learning_rate: float = 1e-4
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.train_clips, self.valid_clips, *self.epochs) < 1:
            raise UserError("train_clips, valid_clips and both epochs must be at least 1")


@dataclass(frozen=True, kw_only=True)
class FinetuneChannels(FaceWeights):
    """The bundled face model on captured motion.

    The encoder is frozen (eval mode, no gradients), so that one speaker's face cannot bind it to that speaker's voice.

    Attributes:
        host: The face model.
        styles: Names of its speaking styles, which are `motion.targets.MANNERS`; the first is the default.
        articulation: The two ends of *Articulation*, mumbled and clear, of `styles`.
        clear_share: How often the clear end is drawn, where either end or a mixture with it is.
        augmentation: How the copies of a clip are changed.
        versions: Copies of each captured clip; the first is as recorded. Their features are computed once.
        driven_share: Share of each batch that is driven by phone times (`motion/phoneme_driven.py`).
        driven_versions: As `versions`, for driven clips.
        speechless: Clips of noise and music, to which the mouth rests, among the driven ones.
    """

    host: FaceFormerChannels
    styles: tuple[str, ...]
    articulation: tuple[str, str]
    clear_share: float = 0.65
    augmentation: Augmentation
    versions: int = 5
    driven_share: float = 0.4
    driven_versions: int = 2
    speechless: int = 60
    steps: int = 2500
    batch: int = 24
    crop_frames: int = 88
    peak_lr: float = 1.5e-3
    warmup_steps: int = 100
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 500
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class FinetuneForced:
    """What lets phones be forced in a bundled face, which is not changed.

    Attributes:
        face: How that face was trained.
        editions: Copies of each driven clip in which phones are exchanged.
        exchanged: Which share of them.
        whole_share: How often all phones of a crop are forced, not a few spans.
    """

    face: FinetuneChannels
    editions: int = 2
    exchanged: float = 0.12
    whole_share: float = 0.3
    steps: int = 2000
    batch: int = 24
    crop_frames: int = 72
    peak_lr: float = 2e-3
    warmup_steps: int = 50
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 250
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class AblateSemantics:
    """The bundled face, trained once for each kind of sentence vector and each seed, with everything else equal.

    Attributes:
        semantics: Of `SEMANTICS`: zeros; the mean F_s of the training clips; another clip's F_s; the clip's own; the
            text model's vector of the clip's text, the best that a Wav2Sem could predict.
    """

    face: FinetuneChannels
    semantics: tuple[str, ...] = SEMANTICS
    seeds: tuple[int, ...] = (0, 1, 2)
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not set(self.semantics) <= set(SEMANTICS) or not self.seeds:
            raise UserError(
                "semantics {semantics}: choose from {known}, and give a seed",
                semantics=", ".join(self.semantics),
                known=", ".join(SEMANTICS),
            )


@dataclass(frozen=True, kw_only=True)
class Export:
    """What a finished run is converted to.

    Attributes:
        onnx: Write the files of the ONNX engine, so that the model runs without torch.
        half_basis: Store the basis in half precision: half the size, an error of 0.02 mm at 40 mm.
        official: Write a file in the format of the released checkpoints (`vocaset.pth`, `biwi.pth`, or Wav2Sem's
            `model.pth.tar`) instead of a folder for the extension.
    """

    onnx: bool = True
    half_basis: bool = True
    official: bool = False
