# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian sid's Blender, with its window, in its own folder; nothing is installed on this machine.

    python tests/gui/debian_blender.py [-- COMMAND ...]

debootstrap makes a small Debian in the user's cache folder, where it stays (1.7 GB; only the first run takes two
minutes). Commands run in it with `chroot`, in their own name spaces: when a command ends, its mounts and all processes
that it started are gone. This needs Linux, root and a Debian archive. Package hosts, proxies and certificates are those
of this machine's apt, or debootstrap's default if apt knows no Debian archive.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SUITE = "sid"
PACKAGES = (
    "blender xvfb xauth imagemagick fonts-dejavu-core ffmpeg libgl1-mesa-dri libegl1 libegl-mesa0 libgl1 libglx-mesa0 "
    # The extension system and glTF's exporter import these; pytest is for tests/blender.
    "python3-cattr python3-numpy python3-requests python3-zstandard python3-pytest"
).split()
BLENDER = "/usr/bin/blender"
_APT_SOURCES = Path("/etc/apt")
_NON_INTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class UnavailableError(Exception):
    """Blender is not available on this machine; the message says why."""


def prepare(cache: Path | None = None) -> Path:
    """Return the folder with Debian and Blender, after making it if necessary.

    Raises:
        UnavailableError: this machine lacks something that is needed to make it.
    """
    cache = cache or default_cache()
    digest = hashlib.sha256(" ".join([SUITE, *PACKAGES]).encode()).hexdigest()[:8]
    root = cache / f"{SUITE}-{digest}"
    _check_machine()
    if not root.is_dir():
        # It has another name until it is complete, so that an interrupted run leaves nothing that looks complete.
        unfinished = cache / f"unfinished-{os.getpid()}"
        try:
            _make(unfinished, cache)
            unfinished.rename(root)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return root


def default_cache() -> Path:
    """Where the folder is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wav2sem-blender" / "gui"


def command(
    root: Path,
    arguments: Sequence[str],
    writable: Sequence[Path] = (),
    readable: Sequence[Path] = (),
    elsewhere: Mapping[Path, str] | None = None,
    folder: Path = Path("/"),
    offline: bool = False,
) -> list[str]:
    """Return the command line that runs `arguments` inside `root`.

    Args:
        root: what `prepare` returned.
        arguments: program and arguments, as seen from inside.
        writable: folders of this machine, available inside under their own paths.
        readable: the same, read-only.
        elsewhere: folders that have another path inside, read-only.
        folder: the working folder, as seen from inside.
        offline: without any network.
    """
    lines = ["set -eu", 'mount -t proc proc "$root/proc"', 'mount -t tmpfs tmpfs "$root/tmp"']
    lines += ['mount --rbind /dev "$root/dev"', 'cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true']
    shown = [(path, str(path.resolve()), "ro") for path in readable]
    shown += [(path, str(path.resolve()), "rw") for path in writable]
    shown += [(path, place, "ro") for path, place in (elsewhere or {}).items()]
    for path, place, options in shown:
        inside = shlex.quote(f"{root}{place}")
        lines += [f"mkdir -p {inside}", f"mount --bind {shlex.quote(str(path.resolve()))} {inside}"]
        lines += [f"mount -o remount,bind,ro {inside}"] if options == "ro" else []
    enter = f'cd {shlex.quote(str(folder))} && exec "$@"'
    lines += [f'exec chroot "$root" sh -c {shlex.quote(enter)} sh "$@"']
    script = f"root={shlex.quote(str(root))}\n" + "\n".join(lines)
    spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return [*spaces, *(["--net"] if offline else []), "sh", "-c", script, "sh", *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables for a command inside: Debian's paths, and Mesa's software renderer."""
    mesa = {"LIBGL_ALWAYS_SOFTWARE": "1", "GALLIUM_DRIVER": "llvmpipe"}
    return {**_NON_INTERACTIVE, "HOME": "/root", **mesa, **(extra or {})}


def _check_machine() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UnavailableError(f"Debian's Blender runs only on Linux x86_64; this is {platform.platform()}")
    if os.geteuid() != 0:
        raise UnavailableError("debootstrap and chroot need root")
    missing = [name for name in ("unshare", "chroot", "mount") if shutil.which(name) is None]
    if missing:
        raise UnavailableError(f"{', '.join(missing)}: no such program here")
    probe = subprocess.run(["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "x", "/mnt"], text=True,
                           capture_output=True)  # fmt: skip
    if probe.returncode:
        raise UnavailableError(f"folders cannot be mounted on this machine: {probe.stderr.strip()}")


def _make(root: Path, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    tool, variables = _debootstrap(cache)
    arguments = [tool, "--variant=minbase", "--include=ca-certificates", SUITE, str(root), *_debian_archives()[:1]]
    _run(arguments, cache / "debootstrap.log", variables)
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    (root / "etc/apt/apt.conf.d/10host").write_text(_host_options(), encoding="utf-8")
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES], ["clean"]):
        _run(command(root, ["apt-get", "--quiet", *arguments]), cache / f"apt-{arguments[0]}.log", environment())


def _debootstrap(cache: Path) -> tuple[str, dict[str, str]]:
    """Return debootstrap and its variables. If it is not installed, unpack its package in the cache."""
    variables = {**os.environ, "LC_ALL": "C.UTF-8"}
    # A user's PATH may leave out the folders of the administrator's programs.
    variables["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    installed = shutil.which("debootstrap", path=variables["PATH"])
    if installed:
        return installed, variables
    missing = [name for name in ("apt-get", "dpkg-deb", "wget") if shutil.which(name) is None]
    if missing:
        raise UnavailableError(f"debootstrap is not installed, and without {', '.join(missing)} it cannot be fetched")
    unpacked, lists = cache / "debootstrap", cache / "lists"
    shutil.rmtree(unpacked, ignore_errors=True)
    for folder in (unpacked, lists / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    own_lists = ["-o", f"Dir::State::Lists={lists}", "-o", "APT::Sandbox::User=root"]
    _run(["apt-get", *own_lists, "update"], cache / "apt-lists.log", variables)
    _run(["apt-get", *own_lists, "download", "debootstrap"], cache / "apt-download.log", variables, folder=unpacked)
    package = next(unpacked.glob("*.deb"))
    _run(["dpkg-deb", "--extract", str(package), str(unpacked)], cache / "unpack.log", variables)
    shutil.rmtree(lists)
    variables["DEBOOTSTRAP_DIR"] = str(unpacked / "usr/share/debootstrap")
    return str(unpacked / "usr/sbin/debootstrap"), variables


def _debian_archives() -> list[str]:
    """Return the Debian archives of this machine's apt, in its order, without security archives, which lack sid."""
    found: list[str] = []
    for path in [_APT_SOURCES / "sources.list", *sorted((_APT_SOURCES / "sources.list.d").glob("*"))]:
        if path.suffix in (".list", ".sources") and path.is_file():
            text = re.sub(r"^\s*#.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            found += [uri for uri in re.findall(r"https?://\S+", text) if uri.rstrip("/").endswith("/debian")]
    return list(dict.fromkeys(found))


def _host_options() -> str:
    """Return this machine's apt options for downloads, in apt's own format."""
    dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False).stdout
    kept = re.findall(r"^Acquire::(?:http|https|Check-|Retries)\S* .*$", dump, re.MULTILINE | re.IGNORECASE)
    return "\n".join([*kept, ""])


def _run(arguments: list[str], log: Path, variables: dict[str, str], folder: Path | None = None) -> None:
    with log.open("w", encoding="utf-8") as output:
        result = subprocess.run(arguments, stdout=output, stderr=subprocess.STDOUT, env=variables, cwd=folder)
    if result.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        lines = [line for line in said if line.startswith("E:")] or said or ["no output"]
        raise UnavailableError(f"{log.stem} failed, see {log}: {lines[-1]}")


def main() -> int:
    """Prepare the folder, and run a command in it if one is given."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--"]
    try:
        root = prepare()
    except UnavailableError as error:
        print(f"SKIPPED: {error}")
        return 0
    print(root)
    return subprocess.run(command(root, arguments), env=environment()).returncode if arguments else 0


if __name__ == "__main__":
    sys.exit(main())
