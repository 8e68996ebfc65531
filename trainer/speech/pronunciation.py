# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer prepare pronunciation --data . --out wav2sem_blender/assets`: how the add-on pronounces words.

Words by frequency come from wordfreq, their phones from espeak-ng, for English from the CMU Pronouncing Dictionary as
packed in pocketsphinx, and for Chinese letters from pypinyin, whose syllables espeak-ng says. A network learns them
(`Spelling`, which `wav2sem_blender/pipeline/words/pronunciation.py` runs in NumPy). Of the commonest words, those that
it gets wrong go into a lexicon. Tables to guess a text's language are made of the same words.

Shapes: N words, M letters, P phones.
"""

from __future__ import annotations

import json
import random
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.files import atomic_path
from wav2sem_blender.pipeline.phones import PHONES
from wav2sem_blender.pipeline.words.language import BUCKETS, STOP_WORDS, buckets_of
from wav2sem_blender.pipeline.words.pronunciation import CODES, LANGUAGES, OUTPUTS, quantised

from .espeak import pronounced_symbols, to_cmu
from .prepared import PreparePronunciation

FILE = "pronunciation.npz"
Said = tuple[str, tuple[str, ...]]

_VOICES = {"en": "en-us", "zh": "cmn-latn-pinyin"}
_LISTS = {"hr": "sh"}
_WORDS = 10_000
_MORE_WORDS = {
    **{"en": 60_000, "fr": 20_000, "de": 20_000, "ru": 20_000, "ja": 20_000, "pt": 15_000, "da": 15_000},
    **{"nl": 15_000, "sv": 15_000, "nb": 12_000, "es": 12_000, "it": 12_000, "ko": 12_000},
}
_CHINESE_LETTERS = 6000
_RARE_WORDS = 5000  # behind those
_HARD = ("en", "da", "vi", "ar", "fa", "ur")  # seen twice in an epoch
# Symbols that `to_cmu` lacks, or sounds that the lips do not show; glottal stops are none of the 40 phones.
_SIMPLER = str.maketrans("εɗ", "ɛd", "ʔʕ#`!?1234567")
_LONGEST = 24
_RARE = 15  # a letter in fewer words is an unknown one
_NUMBERS = [str(n) for n in (*range(101), *range(200, 1001, 100))]


class Spelling(nn.Module):
    """Letters to phones: `OUTPUTS` frames for each letter, read by CTC."""

    def __init__(self, n_letters: int, n_languages: int, channels: int, layers: int, width: int = 48) -> None:
        super().__init__()
        self.letters = nn.Embedding(n_letters + 2, width, padding_idx=0)
        self.langs = nn.Embedding(n_languages, width)
        self.first = nn.Conv1d(width, channels, 5, padding=2)
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, 5, padding=2) for _ in range(layers - 1))
        self.lang2 = nn.Embedding(n_languages, channels)
        self.out = nn.Linear(channels, OUTPUTS * len(PHONES))

    def forward(self, letters_NM: torch.Tensor, languages_N: torch.Tensor) -> torch.Tensor:
        """Scores (N, OUTPUTS M, P); `SIL` is the blank."""
        there = (letters_NM > 0).float()[:, None]
        x = (self.letters(letters_NM) + self.langs(languages_N)[:, None]).transpose(1, 2) * there
        x = torch.relu(self.first(x) + self.lang2(languages_N)[:, :, None]) * there
        for conv in self.convs:
            x = (x + torch.relu(conv(x))) * there
        return self.out(x.transpose(1, 2)).reshape(len(letters_NM), -1, len(PHONES))

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights as the add-on reads them."""
        found: dict[str, np.ndarray] = {}
        for name, module in (("letters_E", self.letters), ("languages_E", self.langs), ("languages_C", self.lang2)):
            found |= quantised(name, module.weight.detach().numpy())
        for i, conv in enumerate([self.first, *self.convs]):
            found |= quantised(f"taps_{i}_KCC", conv.weight.detach().numpy().transpose(2, 1, 0))
            found[f"bias_{i}_C"] = conv.bias.detach().numpy().astype(np.float16)
        found |= quantised("out_CP", self.out.weight.detach().numpy().T)
        found["bias_out_P"] = self.out.bias.detach().numpy().astype(np.float16)
        return found


def prepare_pronunciation(out: Path, config: PreparePronunciation) -> Path:
    """Gather, train and write; returns the file.

    Raises:
        MissingFileError: espeak-ng is not installed.
        UserError: wordfreq, pypinyin or pocketsphinx is not.
    """
    for module in ("wordfreq", "pypinyin", "pocketsphinx"):
        if find_spec(module) is None:
            raise UserError("{module} is not installed; pip install wordfreq pypinyin pocketsphinx", module=module)
    said = {code: list(said_words(code)) for code in LANGUAGES}
    network, letters = train({code: rows for code, rows in said.items() if code != "zh"}, config)
    return write(out, network, letters, said, config)


def said_words(code: str) -> Iterator[Said]:
    """The commonest words of a language with their phones, commonest first, in NFD."""
    from wordfreq import top_n_list

    if code == "zh":
        yield from _said_chinese()
    else:
        yield from _said(top_n_list(_LISTS.get(code, code), _MORE_WORDS.get(code, _WORDS)), code)


def rare_words(code: str) -> Iterator[Said]:
    """The words that are next by frequency, likewise; none for Chinese."""
    from wordfreq import top_n_list

    if code != "zh":
        n = _MORE_WORDS.get(code, _WORDS)
        yield from _said(top_n_list(_LISTS.get(code, code), n + _RARE_WORDS)[n:], code)


def _said(words: Sequence[str], code: str) -> Iterator[Said]:
    dictionary = _cmu_dictionary() if code == "en" else {}
    for word in words:
        if not all(unicodedata.category(c)[0] in "LM" or c in "'’-\u200c" for c in word):
            continue
        if any("\u4e00" <= letter <= "\u9fff" for letter in word):
            continue
        phones = dictionary.get(word) or espeak_phones(word, code)
        spelled = unicodedata.normalize("NFD", word.replace("’", "'"))
        if phones and len(phones) <= OUTPUTS * len(spelled):
            yield spelled, phones


def espeak_phones(word: str, code: str) -> tuple[str, ...]:
    """What espeak-ng says; () if it has a sound that is unknown, or says it in another language."""
    try:
        symbols = [symbol for part in pronounced_symbols(word, _VOICES.get(code, code)) for symbol in part]
        if code in ("ru", "uk"):  # here y is no rounded vowel
            symbols = [symbol.replace("y", "ɨ") for symbol in symbols]
        simpler = (s.translate(_SIMPLER).replace("a.", "a").replace("u.", "u") for s in symbols)
        return tuple(phone for symbol in simpler if symbol.strip("ˈˌː") for phone in to_cmu(symbol))
    except MissingFileError:
        raise
    except UserError:
        return ()


def _said_chinese() -> Iterator[Said]:
    from pypinyin import Style, lazy_pinyin
    from wordfreq import top_n_list

    letters = dict.fromkeys(letter for word in top_n_list("zh", 60_000, wordlist="large") for letter in word)
    known = [letter for letter in letters if "\u4e00" <= letter <= "\u9fff"][:_CHINESE_LETTERS]
    for letter in known:
        syllable = lazy_pinyin(letter, style=Style.TONE3, neutral_tone_with_five=True)[0]
        if phones := espeak_phones(syllable, "zh"):
            yield letter, phones


def _cmu_dictionary() -> dict[str, tuple[str, ...]]:
    import pocketsphinx

    path = Path(pocketsphinx.__file__).parent / "model" / "en-us" / "cmudict-en-us.dict"
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {word: tuple(phones) for word, *phones in rows if "(" not in word}


def train(said: dict[str, list[Said]], config: PreparePronunciation) -> tuple[Spelling, str]:
    """The network, and its letters; prints phone and word errors of 300 words in each language that were held out."""
    torch.manual_seed(config.seed)
    shuffled = random.Random(config.seed)
    counts = Counter(letter for rows in said.values() for word, _ in rows for letter in set(word))
    letters = "".join(sorted(letter for letter, n in counts.items() if n >= _RARE))
    held, learnt = [], []
    for i, (code, rows) in enumerate(sorted(said.items())):
        own = [
            (i, [letters.find(c) + 2 if c in letters else 1 for c in word], [PHONES.index(p) for p in phones])
            for word, phones in rows
            if len(word) <= _LONGEST
        ]
        shuffled.shuffle(own)
        held += own[:300]
        learnt += own[300:] * (2 if code in _HARD else 1)
    network = Spelling(len(letters), len(said), config.channels, config.layers)
    steps = config.epochs * (len(learnt) // _BATCH + 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    step = 0
    while step < steps:
        for batch in _batches(learnt, shuffled):
            if step == steps:
                break
            letters_NM, languages_N, n_letters_N = _tensors(batch)
            log_probabilities = network(letters_NM, languages_N).log_softmax(-1).transpose(0, 1)
            targets = torch.tensor([phone for _, _, phones in batch for phone in phones])
            n_phones_N = torch.tensor([len(phones) for _, _, phones in batch])
            loss = nn.functional.ctc_loss(
                log_probabilities, targets, OUTPUTS * n_letters_N, n_phones_N, blank=0, zero_infinity=True
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step % 1000 == 0:
                print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    for code, (phone_error, word_error) in zip(sorted(said), _errors(network, held, len(said)), strict=True):
        print(f"{code}: phone error {phone_error:.1%}, word error {word_error:.1%}")
    return network, letters


_BATCH = 256
_Row = tuple[int, list[int], list[int]]


def _batches(rows: list[_Row], shuffled: random.Random) -> list[list[_Row]]:
    """All rows once, those of about the same length together."""
    shuffled.shuffle(rows)
    batches = []
    for first in range(0, len(rows), 40 * _BATCH):
        part = sorted(rows[first : first + 40 * _BATCH], key=lambda row: len(row[1]))
        batches += [part[i : i + _BATCH] for i in range(0, len(part), _BATCH)]
    shuffled.shuffle(batches)
    return batches


def _tensors(batch: Sequence[_Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lengths = [len(word) for _, word, _ in batch]
    letters_NM = torch.zeros(len(batch), max(lengths), dtype=torch.long)
    for row, (_, word, _) in zip(letters_NM, batch, strict=True):
        row[: len(word)] = torch.tensor(word)
    return letters_NM, torch.tensor([language for language, _, _ in batch]), torch.tensor(lengths)


def _errors(network: Spelling, rows: list[_Row], n_languages: int) -> list[tuple[float, float]]:
    totals = np.zeros((n_languages, 4))
    with torch.no_grad():
        for first in range(0, len(rows), 300):
            batch = rows[first : first + 300]
            letters_NM, languages_N, n_letters_N = _tensors(batch)
            paths = network(letters_NM, languages_N).argmax(-1).numpy()
            for path, n, (language, _, phones) in zip(paths, n_letters_N.tolist(), batch, strict=True):
                path = path[: OUTPUTS * n]
                heard = [int(p) for p, before in zip(path, [0, *path[:-1]], strict=True) if p and p != before]
                wrong = edit_distance(heard, phones)
                totals[language] += wrong, len(phones), wrong > 0, 1
    return [(wrong / max(n, 1), bad / max(words, 1)) for wrong, n, bad, words in totals]


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Insertions, deletions and substitutions from one sequence to the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


def write(
    out: Path, network: Spelling, letters: str, said: dict[str, list[Said]], config: PreparePronunciation
) -> Path:
    """Write the file: network, lexicon, and the tables to guess a language."""
    from wordfreq import top_n_list

    languages = sorted(code for code in said if code != "zh")
    lexicon: dict[str, dict[str, str]] = {"zh": {word: _signs(phones) for word, phones in said["zh"]}}
    for i, code in enumerate(languages):
        rows = said[code][: config.lexicon_words_en if code == "en" else config.lexicon_words]
        wrong = _wrong(network, letters, i, rows)
        numbers = {n: _signs(phones) for n in _NUMBERS if code != "en" and (phones := espeak_phones(n, code))}
        lexicon[code] = {word: _signs(phones) for word, phones in wrong} | numbers
    lexicon["zh"] |= {n: _signs(phones) for n in _NUMBERS if (phones := espeak_phones(n, "zh"))}
    stop_words = {code: top_n_list(_LISTS.get(code, code), STOP_WORDS) for code in languages}
    about = {
        "letters": letters,
        "languages": languages,
        "layers": config.layers,
        "lexicon": lexicon,
        "stop_words": stop_words,
    }
    packed = zlib.compress(json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode(), 9)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / FILE) as path:
        np.savez_compressed(
            path,
            about=np.frombuffer(packed, np.uint8),
            letter_pairs_NB=np.stack([_letter_pairs(_LISTS.get(code, code)) for code in languages]),
            **network.arrays(),  # type: ignore[arg-type]
        )
    return out / FILE


def _wrong(network: Spelling, letters: str, language: int, rows: Sequence[Said]) -> Iterator[Said]:
    coded: list[_Row] = [
        (language, [letters.find(c) + 2 if c in letters else 1 for c in word], [PHONES.index(p) for p in phones])
        for word, phones in rows
    ]
    with torch.no_grad():
        for row, said in zip(coded, rows, strict=True):
            letters_NM, languages_N, _ = _tensors([row])
            path = network(letters_NM, languages_N)[0].argmax(-1).tolist()
            heard = [p for p, before in zip(path, [0, *path[:-1]], strict=True) if p and p != before]
            if heard != row[2]:
                yield said


def _letter_pairs(listed: str) -> np.ndarray:
    """How rare each pair of letters is in a language: -20 ln of its share, uint8 (B,)."""
    from wordfreq import get_frequency_dict

    commonest = sorted(get_frequency_dict(listed).items(), key=lambda pair: -pair[1])[:5000]
    counts_B = np.full(BUCKETS, 1e-4)
    for word, frequency in commonest:
        np.add.at(counts_B, buckets_of(word), frequency**0.5)
    return np.minimum(-20 * np.log(counts_B / counts_B.sum()), 255).astype(np.uint8)


def _signs(phones: Sequence[str]) -> str:
    return "".join(CODES[PHONES.index(phone)] for phone in phones)
