# SPDX-License-Identifier: GPL-3.0-or-later
"""English numbers, sums of money, times and abbreviations, as they are said."""

from __future__ import annotations

import re

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_THOUSANDS = (
    (10**12, "trillion"),
    (10**9, "billion"),
    (10**6, "million"),
    (1000, "thousand"),
)
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_UNITS = {"$": ("dollar", "dollars"), "€": ("euro", "euros"), "£": ("pound", "pounds"), "¥": ("yen", "yen")}
_AFTER = {"%": "percent", "°": "degrees"}
_ABBREVIATIONS = {
    "mr": "mister",
    "mrs": "missus",
    "ms": "miz",
    "dr": "doctor",
    "prof": "professor",
    "st": "saint",
    "jr": "junior",
    "sr": "senior",
    "vs": "versus",
    "etc": "et cetera",
    "e.g": "for example",
    "i.e": "that is",
    "no": "number",
    "approx": "approximately",
    "dept": "department",
    "gen": "general",
    "capt": "captain",
    "sgt": "sergeant",
    "lt": "lieutenant",
    "col": "colonel",
}
_ONLY_WITH_STOP = frozenset(("no", "gen", "col", "st", "sr", "etc", "lt"))  # "no." at a sentence's end stays "no"
_NEVER_ALONE = frozenset(("no", "gen", "col"))
_LETTERS = dict(
    pair.split(":")
    for pair in (
        "a:ay b:bee c:see d:dee e:ee f:eff g:gee h:aitch i:eye j:jay k:kay l:ell m:em n:en o:oh p:pee q:cue r:are "
        "s:ess t:tee u:you v:vee w:double-you x:ex y:why z:zee"
    ).split()
)
_SAID_AS_WORDS = frozenset("NASA NATO AIDS LASER RADAR UNESCO UNICEF OPEC FIFA OK IKEA ASAP COVID SWAT NAFTA".split())


def said_in_english(written: str) -> str:
    """A written word as it is said; words that are said as they are written stay, without a full stop."""
    if any(letter.isdigit() for letter in written):
        return _number(written)
    has_stop = written.endswith(".")
    bare = written.rstrip(".")
    lower = bare.lower()
    if lower in _ABBREVIATIONS and lower not in _NEVER_ALONE and (has_stop or lower not in _ONLY_WITH_STOP):
        return _ABBREVIATIONS[lower]
    letters = bare.replace(".", "")
    if re.fullmatch(r"(?:[a-zA-Z]\.)+[a-zA-Z]", bare):
        return _spelled(letters)
    capitals = bare.isupper() and bare.isascii() and bare.isalpha() and bare not in _SAID_AS_WORDS
    if capitals and 2 <= len(bare) <= 4 and not _sounds_like_a_word(bare):
        return _spelled(bare)
    return bare


def _spelled(letters: str) -> str:
    return " ".join(_LETTERS[letter] for letter in letters.lower())


def _sounds_like_a_word(letters: str) -> bool:
    """Whether capitals may be shouted: a vowel between consonants, as in "STOP", or a short common word."""
    if letters.lower() in _SHORT:
        return True
    return len(letters) > 3 and re.search(r"[AEIOUY]", letters) is not None


_SHORT = frozenset(
    (
        "a i am an and are as at ask bad be big but by can car cat day did do dog eat end far for fun get go god "
        "got had has he her hey hi him his how if in is it its let lie lot man may me men mom mum my new no not "
        "now of off oh old on one or our out own put ran red run saw say sea see set she sit so son sun ten the "
        "tie to too top two up us use war was way we who why win yes yet you"
    ).split()
)


def _number(written: str) -> str:
    """A token with digits in it."""
    text = written.strip().rstrip(".,:")
    before, after = "", ""
    if text[:1] in _UNITS:
        before, text = text[0], text[1:]
    while text[-1:] in _AFTER or text[-1:] in _UNITS:
        after, text = text[-1], text[:-1].strip()
    ordinal = re.fullmatch(r"(\d+)(?:st|nd|rd|th)", text)
    if ordinal:
        return _ordinal(int(ordinal.group(1)))
    if clock := re.fullmatch(r"(\d{1,2}):(\d\d)", text):
        hours, minutes = int(clock.group(1)), int(clock.group(2))
        rest = "o'clock" if minutes == 0 else ("oh " if minutes < 10 else "") + _cardinal(minutes)
        return f"{_cardinal(hours)} {rest}"
    text = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))", "", text)
    whole, _, fraction = text.partition(".")
    if not whole.isdecimal() or (fraction and not fraction.isdecimal()):
        # Letters and digits, as in "R2D2" or "MP3": each as it is said alone.
        pieces = re.findall(r"\d+|[^\W\d_]+", text)
        return " ".join(map(_piece, pieces)) or written
    unit = before or (after if after in _UNITS else "")
    if unit:
        one, many = _UNITS[unit]
        said = f"{_cardinal(int(whole))} {one if whole == '1' else many}"
        return f"{said} {_cardinal(int(fraction[:2].ljust(2, '0')))}" if fraction.strip("0") else said
    if not fraction and len(whole) == 4 and not after and 1100 <= int(whole) <= 2099 and int(whole) // 100 != 20:
        said = _year(int(whole))
    elif not fraction and len(whole) == 4 and not after and 2010 <= int(whole) <= 2099:
        said = f"twenty {_cardinal(int(whole) - 2000)}"
    elif len(whole) > 15 or (len(whole) > 1 and whole[0] == "0"):
        said = " ".join(_ONES[int(digit)] for digit in whole)
    else:
        said = _cardinal(int(whole))
    if fraction:
        said += " point " + " ".join(_ONES[int(digit)] for digit in fraction[:20])
    return f"{said} {_AFTER[after]}" if after in _AFTER else said


def _piece(text: str) -> str:
    if not text.isdecimal():
        if any(letter.isdigit() for letter in text):  # "²" is no number that int() reads
            return text
        return _spelled(text) if len(text) == 1 and text.isascii() else said_in_english(text)
    return _cardinal(int(text)) if len(text) <= 2 and text[0] != "0" else " ".join(_ONES[int(c)] for c in text[:20])


def _year(year: int) -> str:
    century, rest = divmod(year, 100)
    if rest == 0:
        return f"{_cardinal(century)} hundred"
    return f"{_cardinal(century)} {'oh ' if rest < 10 else ''}{_cardinal(rest)}"


def _cardinal(n: int) -> str:
    if n < 20:
        return _ONES[n]
    if n < 100:
        tens, ones = divmod(n, 10)
        return _TENS[tens] + (f" {_ONES[ones]}" if ones else "")
    if n < 1000:
        hundreds, rest = divmod(n, 100)
        return f"{_ONES[hundreds]} hundred" + (f" and {_cardinal(rest)}" if rest else "")
    for size, name in _THOUSANDS:
        if n >= size:
            many, rest = divmod(n, size)
            return f"{_cardinal(many)} {name}" + (f" {_cardinal(rest)}" if rest else "")
    raise AssertionError(n)


def _ordinal(n: int) -> str:
    *first, last = _cardinal(n).split()
    regular = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return " ".join([*first, _ORDINALS.get(last, regular)])
