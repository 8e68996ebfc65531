# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer.speech.token_features --data VOCASET`, or `… RECORDING.wav --text "what is said"`

What the host `joint_audio_text` reads beside the speech: the hidden states of a BERT model's tokens, each over the time
of its word, 50 times a second. The first form writes DATA/features/CLIP.text.npy for every clip that has a text, the
second RECORDING.text.npy. Word times are those of pocketsphinx; where it fails, the words share the recording evenly.

Shapes: S samples at 16 kHz, L encoder frames (50 Hz), N tokens, W words, E features.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from wav2sem_blender.errors import UserError, report
from wav2sem_blender.files import atomic_path
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ, Speech
from wav2sem_blender.pipeline.frame_timing import HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES, encoder_frames
from wav2sem_blender.pipeline.given_features import TEXT_SUFFIXES

from ..datasets.corpora import NORMALISED_TEXT
from ..datasets.face_data import FEATURES_FOLDER
from ..datasets.opening import open_face_data
from .align import Aligner
from .phones import Timing
from .sentences import default_text_model, load_bert


class TokenEncoder:
    """The hidden states of a text's tokens, and the words that they belong to."""

    def __init__(self, model: str = "") -> None:
        """`model`: A folder or hub name of a model with BERT's architecture; "" is the default one."""
        self._tokenizer, self._bert = load_bert(model or default_text_model())
        if not self._tokenizer.is_fast:
            raise UserError("{model}: its tokenizer does not tell which word a token is of", model=model)

    @torch.no_grad()
    def __call__(self, words: Sequence[str]) -> tuple[np.ndarray, list[int | None]]:
        """States (N, E), and the word of each token; None for those that begin and end a text.

        Raises:
            UserError: The text is too long for the model.
        """
        tokens = self._tokens(words)
        return self._bert(**tokens).last_hidden_state[0].numpy(), tokens.word_ids(0)

    @torch.no_grad()
    def of_words(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Means over each word's tokens (W, E): of their states, and of the embeddings, which know no other word.

        Raises:
            UserError: The text is too long for the model.
        """
        tokens = self._tokens(words)
        states_NE = self._bert(**tokens).last_hidden_state[0]
        embeddings_NE = self._bert.get_input_embeddings()(tokens["input_ids"])[0]
        word_of_N = np.array([-1 if word is None else word for word in tokens.word_ids(0)])
        means = [
            np.stack([vectors_NE.numpy()[word_of_N == word].mean(0) for word in range(len(words))])
            for vectors_NE in (states_NE, embeddings_NE)
        ]
        return means[0], means[1]

    def _tokens(self, words: Sequence[str]) -> Any:
        tokens = self._tokenizer(list(words), is_split_into_words=True, return_tensors="pt")
        n_tokens, limit = tokens["input_ids"].shape[1], self._bert.config.max_position_embeddings
        if n_tokens > limit:
            raise UserError(
                "the text has {n_tokens} tokens, and the model reads {limit}; animate the recording in parts",
                n_tokens=n_tokens,
                limit=limit,
            )
        return tokens


def token_starts(words: Sequence[Timing], word_of: Sequence[int | None]) -> np.ndarray:
    """When each token begins, in seconds (N,).

    The tokens of a word share its time evenly. The token before the first word begins at 0, the one behind the last
    word where that ends.
    """
    starts_N = np.zeros(len(word_of))
    for index, (_, begin, end) in enumerate(words):
        own = [i for i, word in enumerate(word_of) if word == index]
        starts_N[own] = begin + (end - begin) * np.arange(len(own)) / max(len(own), 1)
    for i, word in enumerate(word_of):
        if word is None and i:
            starts_N[i] = words[-1][2] if words else 0.0
    return starts_N


def spread(states_NE: np.ndarray, starts_N: np.ndarray, n_enc_frames: int) -> np.ndarray:
    """The state (L, E) of the token that is said at the middle of every encoder frame."""
    middles_L = (np.arange(n_enc_frames) * HOP_SAMPLES + RECEPTIVE_FIELD_SAMPLES / 2) / SAMPLE_RATE_HZ
    said_L = np.searchsorted(starts_N, middles_L, side="right") - 1
    return states_NE[said_L.clip(0)].astype(np.float32)


def evenly(words: Sequence[str], duration_s: float) -> list[Timing]:
    """Words over a whole recording, each as long as its letters are many."""
    ends = np.cumsum([len(word) for word in words])
    ends_s = np.concatenate([[0.0], ends / ends[-1] * duration_s])
    return [(word, float(a), float(b)) for word, (a, b) in zip(words, pairwise(ends_s), strict=True)]


def token_features(
    samples_S: np.ndarray, text: str, encoder: TokenEncoder, aligner: Aligner
) -> tuple[np.ndarray, bool]:
    """Features (L, E) of float samples, and whether the words were found in the recording.

    Raises:
        UserError: There are no words, or too many.
    """
    words = text.translate(NORMALISED_TEXT).lower().split()
    if not words:
        raise UserError("there are no words in the text {text!r}", text=text)
    found = aligner.word_times(np.clip(32767 * samples_S, -32768, 32767).astype(np.int16), " ".join(words))
    states_NE, word_of = encoder(words)
    starts_N = token_starts(found or evenly(words, len(samples_S) / SAMPLE_RATE_HZ), word_of)
    return spread(states_NE, starts_N, encoder_frames(len(samples_S))), found is not None


def _save(file: Path, features_LE: np.ndarray) -> None:
    with atomic_path(file) as unfinished:
        np.save(unfinished, features_LE.astype(np.float16))


def of_data_set(data: Path, layout: str, model: str) -> None:
    """Write DATA/features/CLIP.text.npy of every clip with a text.

    Raises:
        UserError: No clip has a text.
    """
    faces, folder = open_face_data(layout, data), data / FEATURES_FOLDER
    told = [clip for clip in faces.clips if clip.text]
    if not told:
        raise UserError("{data}: no clip has a text; give sentencestext/SUBJECT.txt or sentences.tsv", data=data)
    encoder, aligner, n_found = TokenEncoder(model), Aligner(), 0
    folder.mkdir(exist_ok=True)
    for clip in tqdm(told, desc="text features", unit="clip"):
        features_LE, found = token_features(faces.samples(clip), clip.text or "", encoder, aligner)
        n_found += found
        _save(folder / f"{clip.name}{TEXT_SUFFIXES[0]}", features_LE)
    print(f"{folder}: {len(told)} of {len(faces.clips)} clips have a text; {n_found} were aligned, the others evenly")


def of_recording(file: Path, text: str, model: str) -> None:
    """Write RECORDING.text.npy beside a recording."""
    with Speech.from_file(file) as speech:
        samples_S = speech.read(0, speech.n_samples, normalised=False)
    features_LE, found = token_features(samples_S, text, TokenEncoder(model), Aligner())
    _save(file.with_suffix(TEXT_SUFFIXES[0]), features_LE)
    print(f"{file.with_suffix(TEXT_SUFFIXES[0])}: words {'found in the sound' if found else 'spread evenly'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Errors become one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m trainer.speech.token_features", description=__doc__)
    parser.add_argument("recording", type=Path, nargs="?")
    parser.add_argument("--text", default="")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--layout", default="vocaset", help="of --data: vocaset, biwi or custom")
    parser.add_argument("--model", default="", help="folder or hub name of a BERT model")
    arguments = parser.parse_args(argv)
    if (arguments.data is None) == (arguments.recording is None):
        parser.error("give --data FOLDER, or a recording and --text")
    try:
        if arguments.data is not None:
            of_data_set(arguments.data, arguments.layout, arguments.model)
        else:
            of_recording(arguments.recording, arguments.text, arguments.model)
    except Exception as error:
        print(f"token_features: {report(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
