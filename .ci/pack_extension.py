# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack the Blender extension: one zip per platform in dist/. The same sources give the same bytes.

    python .ci/pack_extension.py [--platform linux-x64 ...] [--validate] [--index]
    python .ci/pack_extension.py --update-hashes        # after a pin has changed: .ci/wheels.sha256

Beside each zip lie its SHA-256, which `sha256sum -c` reads, and its parts as CycloneDX lists them. Only wheels whose
hashes are in .ci/wheels.sha256 are packed.

`blender --command extension build` cannot do this: Blender wants `__init__.py` and the manifest at the zip's root, but
in the repository the manifest lies above the package. The script needs `pip` and `packaging`, and `bpy` for --validate
and --index.

The zips carry wheels for the Pythons of the supported Blenders: 3.11 for 4.5 and 5.0, 3.13 from 5.1 on, and on Linux
3.14, the system's Python, for the Blender of Debian and Arch. Blender installs those that fit. The wheels are what the
default engine needs at run time and Blender does not have. NumPy is Blender's. Some declared dependencies are never
imported: onnxruntime's flatbuffers, protobuf and packaging, and cffi's pycparser. Windows on ARM has no zip, because
soxr publishes no wheel for it.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import importlib.util
import json
import subprocess
import sys
import tomllib
import uuid
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wav2sem_blender.files import FolderKind, atomic_path, write_atomically  # noqa: E402

PACKAGE = ROOT / "wav2sem_blender"
MANIFEST = ROOT / "blender_manifest.toml"
CONSTRAINTS = ROOT / "constraints.txt"
MODEL = PACKAGE / "assets" / "models" / "default" / "config.json"
WHEEL_HASHES = ROOT / ".ci" / "wheels.sha256"
WHEEL_CACHE = ROOT / ".wheels"
WHEEL_FOLDER = FolderKind(made_by="pack_extension.py", names=("*.whl", "pins.json"))
ZIP_NAMES = ("*.zip", "*.zip.sha256", "*.zip.cdx.json", "index.json", "index.html")
ZIP_FOLDER = FolderKind(made_by="pack_extension.py", names=ZIP_NAMES)
MAX_ZIP_BYTES = 120_000_000
CARRIED = ("onnxruntime", "soundfile", "soxr", "safetensors", "cffi", "typing_extensions")
# Already compressed. The weights are not: deflating them takes two seconds and saves 5 MB.
STORED = (".whl", ".flac", ".npz", ".png")
# Licences compatible with the GPL, version 3, as wheels declare them: in SPDX, or in the older classifiers.
GPL_COMPATIBLE = {"BSD-3-Clause", "LGPL-2.1-or-later", "MIT", "MIT-0", "PSF-2.0"}
GPL_COMPATIBLE |= {"Apache Software License", "BSD License", "MIT License"}
# Zip entries need a time. A constant keeps the bytes equal; this is the format's earliest.
ENTRY_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One of Blender's platforms: its wheel tags, and the environment for evaluating markers."""

    tags: tuple[str, ...]
    sys_platform: str
    machine: str
    pythons: tuple[str, ...] = ("3.11", "3.13")


PLATFORMS = {
    "linux-x64": Platform(
        tags=(*(f"manylinux_2_{minor}_x86_64" for minor in range(28, 16, -1)), "manylinux2014_x86_64"),
        sys_platform="linux",
        machine="x86_64",
        pythons=("3.11", "3.13", "3.14"),
    ),
    "windows-x64": Platform(tags=("win_amd64",), sys_platform="win32", machine="AMD64"),
    "macos-arm64": Platform(tags=("macosx_14_0_arm64",), sys_platform="darwin", machine="arm64"),
    # Blender 4.5 is the last for Intel Macs, so one Python is enough.
    "macos-x64": Platform(tags=("macosx_14_0_x86_64",), sys_platform="darwin", machine="x86_64", pythons=("3.11",)),
}


def pinned(name: str, platform: Platform, python: str) -> str:
    """Return "name==version" from constraints.txt as it applies to `platform` and `python` ("3.11").

    Raises:
        ValueError: no pin applies.
    """
    environment = {"python_version": python, "sys_platform": platform.sys_platform}
    environment["platform_machine"] = platform.machine
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if not line.startswith(f"{name}=="):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            return f"{name}{requirement.specifier}"
    raise ValueError(f"constraints.txt pins no {name} for {platform.sys_platform} with Python {python}.")


def fetch_wheels(platform_name: str, cache: Path = WHEEL_CACHE) -> list[Path]:
    """Return the wheels for a platform, downloaded by pip once per set of pins and kept in `cache`; not yet checked."""
    platform = PLATFORMS[platform_name]
    pins = {python: [pinned(name, platform, python) for name in CARRIED] for python in platform.pythons}
    folder = cache / platform_name
    record = folder / "pins.json"
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")) == pins:
        return sorted(folder.glob("*.whl"))
    WHEEL_FOLDER.empty(folder)
    for python, requirements in pins.items():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        for tag in platform.tags:
            command += ["--platform", tag]
        abi = f"cp{python.replace('.', '')}"
        command += ["--implementation", "cp", "--python-version", python]
        command += ["--abi", abi, "--abi", "abi3", "--abi", "none", "--dest", str(folder)]
        subprocess.run([*command, *requirements], check=True)
    write_atomically(record, json.dumps(pins, indent=1).encode())
    return sorted(folder.glob("*.whl"))


def known_hashes(file: Path = WHEEL_HASHES) -> dict[str, str]:
    """Return the SHA-256 of every wheel that may be packed, by the wheel's name."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines if line)}


def check_wheels(platform_name: str, wheels: list[Path], known: dict[str, str]) -> None:
    """Compare the wheels of a platform with the hashes that are known.

    Raises:
        ValueError: a wheel is unknown or was changed, or one of `CARRIED` is missing for a Python.
    """
    for wheel in wheels:
        if wheel.name not in known:
            raise ValueError(f"{wheel}: {WHEEL_HASHES.name} has no such wheel. Remove it, or run --update-hashes.")
        if sha256_of(wheel) != known[wheel.name]:
            raise ValueError(f"{wheel} is not the file whose hash is in {WHEEL_HASHES.name}. Remove it and run again.")
    platform = PLATFORMS[platform_name]
    for python in platform.pythons:
        tag = f"-cp{python.replace('.', '')}-"
        for name in CARRIED:
            version = pinned(name, platform, python).partition("==")[2]
            fitting = [
                w for w in wheels if w.name.startswith(f"{name}-{version}-") and (tag in w.name or is_for_any(w))
            ]
            if not fitting:
                raise ValueError(f"{name} {version} for Python {python} is missing in {WHEEL_CACHE / platform_name}.")


def is_for_any(wheel: Path) -> bool:
    """Whether a wheel is for more Pythons than one: pure, or with the stable ABI."""
    python, abi = wheel.stem.split("-")[-3:-1]
    return abi == "abi3" or python.startswith("py")


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def update_hashes() -> None:
    """Download the wheels of every platform, and write their hashes to `WHEEL_HASHES`."""
    wheels = {wheel.name: sha256_of(wheel) for name in PLATFORMS for wheel in fetch_wheels(name)}
    lines = [f"{digest}  {name}\n" for name, digest in sorted(wheels.items())]
    write_atomically(WHEEL_HASHES, "".join(lines).encode())


def metadata_of(wheel: Path) -> Message:
    """Return what a wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def licence_of(wheel: Path) -> str:
    """Return the licence that a wheel declares, as an SPDX expression or as the name in its classifier.

    Raises:
        ValueError: it declares no licence that is known to be compatible with the GPL.
    """
    metadata = metadata_of(wheel)
    classifiers = [line.split(" :: ") for line in metadata.get_all("Classifier", [])]
    declared = [metadata["License-Expression"], *(parts[-1] for parts in classifiers if parts[0] == "License")]
    found = next(filter(None, declared), "none")
    if found not in GPL_COMPATIBLE:
        raise ValueError(f"{wheel.name} declares the licence {found!r}, which is not among those known to fit the GPL.")
    return found


def manifest_text(platform_name: str, wheels: list[Path]) -> str:
    """Return the repository's manifest with `platforms` and `wheels` added before its first table."""
    lines = [f'platforms = ["{platform_name}"]', "wheels = ["]
    lines += [f'  "./wheels/{wheel.name}",' for wheel in wheels]
    added = "\n".join([*lines, "]", "", ""])
    head, table, tail = MANIFEST.read_text(encoding="utf-8").partition("[permissions]")
    text = head + added + table + tail
    if set(tomllib.loads(text)) != set(tomllib.loads(head + table + tail)) | {"platforms", "wheels"}:
        raise ValueError(f"{MANIFEST.name}: the wheels cannot be added; its first table must be [permissions].")
    return text


def package_files() -> dict[str, Path]:
    """Return the extension's files, without manifest and wheels, by their names in the zip."""
    files = {"LICENSE": ROOT / "LICENSE", "LICENSE-weights": ROOT / "LICENSE-weights"}
    for path in PACKAGE.rglob("*"):
        parts = path.relative_to(PACKAGE).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if path.is_file() and not hidden and path.name != "ruff.toml":
            files["/".join(parts)] = path
    return files


def build_zip(platform_name: str, wheels: list[Path], folder: Path) -> Path:
    """Write `<id>-<version>-<platform>.zip` into `folder`, whole or not at all, and return its path.

    Raises:
        ValueError: the zip is larger than MAX_ZIP_BYTES, which is somewhat below a listing's limit.
    """
    manifest = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{manifest['id']}-{manifest['version']}-{platform_name.replace('-', '_')}.zip"
    content = {name: path.read_bytes() for name, path in package_files().items()}
    content |= {f"wheels/{wheel.name}": wheel.read_bytes() for wheel in wheels}
    content["blender_manifest.toml"] = manifest_text(platform_name, wheels).encode()
    with atomic_path(target) as unfinished:
        with zipfile.ZipFile(unfinished, "w") as archive:
            for name in sorted(content):
                entry = zipfile.ZipInfo(name, ENTRY_TIME)
                entry.create_system = 3
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_STORED if name.endswith(STORED) else zipfile.ZIP_DEFLATED
                archive.writestr(entry, content[name])
        if (size := unfinished.stat().st_size) > MAX_ZIP_BYTES:
            most = f"at most {MAX_ZIP_BYTES / 1e6:.0f} MB are allowed"
            raise ValueError(f"{target.name} has {size / 1e6:.1f} MB; {most}.")
    return target


def write_papers(zip_path: Path, wheels: list[Path]) -> None:
    """Write `ZIP.sha256` and `ZIP.cdx.json` beside a zip; the same zip gives the same bytes."""
    digest = sha256_of(zip_path)
    bill = json.dumps(bill_of_materials(digest, wheels), indent=1) + "\n"
    write_atomically(zip_path.with_name(f"{zip_path.name}.cdx.json"), bill.encode())
    write_atomically(zip_path.with_name(f"{zip_path.name}.sha256"), f"{digest}  {zip_path.name}\n".encode())


def bill_of_materials(digest: str, wheels: list[Path]) -> dict[str, Any]:
    """Return what a zip is made of, as CycloneDX 1.6: the extension, its wheels and its model, each with its hash."""
    manifest = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))
    parts = [wheel_component(wheel) for wheel in wheels]
    if MODEL.is_file():  # its hash covers those of the other files, which are in it
        model = {"type": "machine-learning-model", "bom-ref": "model", "name": "the bundled model"}
        model |= {"version": manifest["version"], "hashes": hashes(sha256_of(MODEL))}
        parts.append({**model, "licenses": [{"license": {"name": "see LICENSE-weights"}}]})
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": manifest["id"],
                "name": manifest["id"],
                "version": manifest["version"],
                "hashes": hashes(digest),
                "licenses": [{"license": {"id": "GPL-3.0-or-later"}}],
            }
        },
        "components": parts,
        "dependencies": [{"ref": manifest["id"], "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def wheel_component(wheel: Path) -> dict[str, Any]:
    """Return a wheel as a component of a bill of materials."""
    metadata, licence = metadata_of(wheel), licence_of(wheel)
    name, version = str(metadata["Name"]), str(metadata["Version"])
    package = name.lower().replace("_", "-")
    return {
        "type": "library",
        "bom-ref": wheel.name,
        "name": name,
        "version": version,
        "hashes": hashes(sha256_of(wheel)),
        "licenses": [{"license": {"name" if " " in licence else "id": licence}}],
        "purl": f"pkg:pypi/{package}@{version}?file_name={wheel.name}",
    }


def hashes(digest: str) -> list[dict[str, str]]:
    """Return a SHA-256 as CycloneDX writes it."""
    return [{"alg": "SHA-256", "content": digest}]


def blender_ext_script() -> Path | None:
    """Return Blender's own extension tool from the installed bpy wheel, or None without bpy."""
    spec = importlib.util.find_spec("bpy")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for script in Path(folder).glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py"):
            return script
    return None


def extension_tool(*arguments: str) -> str:
    """Run Blender's own extension tool and return its output.

    Raises:
        ValueError: bpy is not installed, or the tool fails.
    """
    script = blender_ext_script()
    if script is None:
        raise ValueError(
            f"{arguments[0]} needs the module bpy, which carries Blender's extension tool: pip install bpy"
        )
    result = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        raise ValueError(f"Blender refuses {Path(arguments[-1]).name}:\n{result.stdout}{result.stderr}")
    return result.stdout


def validate(zip_path: Path) -> None:
    """Run Blender's `extension validate` on a zip, with Blender's own list of tags.

    Raises:
        ValueError: bpy is not installed, or Blender refuses the zip.
    """
    script = blender_ext_script()
    tags = script.parents[3] / "modules/_bpy_internal/extensions/tags.py" if script else ""
    extension_tool("validate", "--valid-tags", str(tags), str(zip_path))


def write_index(folder: Path) -> Path:
    """Make `folder` a repository: index.json for Blender, index.html for a browser.

    Returns:
        The path of index.json, which lists the zips in the order of their names.

    Raises:
        ValueError: Blender lists other zips than those in the folder, or two for one platform.
    """
    said = extension_tool("server-generate", "--html", "--repo-dir", str(folder))
    index = folder / "index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    content["data"].sort(key=lambda entry: entry["archive_url"])
    listed = [Path(entry["archive_url"]).name for entry in content["data"]]
    if listed != sorted(path.name for path in folder.glob("*.zip")):
        raise ValueError(f"Blender lists {listed} of the zips in {folder}:\n{said}")
    platforms = [platform for entry in content["data"] for platform in entry["platforms"]]
    if len(set(platforms)) < len(platforms):
        raise ValueError(f"{folder} holds two zips for one platform: {listed}. Move the older ones away.")
    index.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return index


def main(arguments: list[str] | None = None) -> int:
    """Build the requested zips and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", action="append", choices=sorted(PLATFORMS), help="default: every platform")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder for the zips (default: dist)")
    parser.add_argument("--validate", action="store_true", help="have Blender's extension tool check every zip")
    parser.add_argument("--index", action="store_true", help="write index.json and index.html: a repository")
    parser.add_argument("--update-hashes", action="store_true", help="download all wheels and write their hashes alone")
    options = parser.parse_args(arguments)
    if options.update_hashes:
        update_hashes()
        return 0
    ZIP_FOLDER.claim(options.output)
    for name in options.platform or PLATFORMS:
        wheels = fetch_wheels(name)
        check_wheels(name, wheels, known_hashes())
        licences = sorted({licence_of(wheel) for wheel in wheels})
        path = build_zip(name, wheels, options.output)
        if options.validate:
            validate(path)
        write_papers(path, wheels)
        size_mb = path.stat().st_size / 1e6
        print(f"{path.name}  {size_mb:.1f} MB  {len(wheels)} wheels ({', '.join(licences)})  sha256 {sha256_of(path)}")
    if options.index:
        print(write_index(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
