# SPDX-License-Identifier: GPL-3.0-or-later
"""The installation of the torch runtime, offline: a real environment and the real pip, with a tiny package."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from wav2sem_blender.errors import Text, UserError
from wav2sem_blender.worker import environment, install, runtime
from wav2sem_blender.worker.runtime import Runtime
from wav2sem_blender.worker.task import TaskFailedError, TaskProcess

ROOT = Path(__file__).parents[2]
NAME, SIZE_BYTES = "tiny-torch", 300_000


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """A folder with one wheel."""
    folder = tmp_path_factory.mktemp("wheels")
    info = "tiny_torch-1.0.dist-info"
    content = {
        "tiny_torch.py": "# " + "x" * SIZE_BYTES + "\nANSWER = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*content, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / "tiny_torch-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in (*content.items(), (f"{info}/RECORD", record)):
            wheel.writestr(name, text)
    return folder


def installing(folder: Path, wheels: Path, *requirements: str) -> TaskProcess:
    own = environment.from_python(sys.executable)
    options = [f"--pip-option={option}" for option in ("--no-index", f"--find-links={wheels}")]
    options += [f"--requirement={requirement}" for requirement in requirements]
    variables = {name: value for name, value in own.variables().items() if not name.startswith("PIP_")}
    return TaskProcess(own.run("worker.install", "install", str(folder), *options), variables, "Starting")


def removing(folder: Path) -> TaskProcess:
    own = environment.from_python(sys.executable)
    return TaskProcess(own.run("worker.install", "remove", str(folder)), own.variables(), "Starting")


def test_it_is_made_found_unfinished_continued_and_removed(tmp_path, wheels):
    made = Runtime(tmp_path / "user" / "torch_runtime")
    assert not made.is_complete and not made.is_unfinished

    # A package that does not exist: the environment stays, unfinished, and is not taken for a runtime.
    with pytest.raises(TaskFailedError, match=r"pip could not install .*there-is-no-such-package.* to continue"):
        installing(made.folder, wheels, "there-is-no-such-package").wait()
    assert made.is_unfinished and not made.is_complete and made.python.is_file()
    (made.environment / "kept").write_text("the second attempt continues with this one")

    seen, task = [], installing(made.folder, wheels, NAME)
    while not task.poll():
        seen.append((task.fraction, task.text))
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)
    assert (made.environment / "kept").is_file()
    assert made.is_complete and not made.is_unfinished and not made.cache.exists()
    assert task.result["python"] == str(made.python)
    assert task.result["size_bytes"] == made.size_bytes > SIZE_BYTES
    asked = subprocess.run([made.python, "-c", "import tiny_torch; print(tiny_torch.ANSWER)"], capture_output=True)
    assert asked.stdout.strip() == b"42"

    # As after an update of the add-on that pins other versions.
    record = made.folder / "complete.json"
    assert not made.is_outdated
    record.write_text(json.dumps({"requirements": ["torch==1.0"], "size_bytes": 1}))
    assert made.is_outdated

    removing(made.folder).wait()
    assert list(made.folder.parent.iterdir()) == []


@pytest.mark.parametrize("is_known", [True, False])
def test_a_package_of_another_hash_is_not_installed(tmp_path, wheels, is_known):
    (wheel,) = wheels.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest() if is_known else 64 * "0"
    hashes = tmp_path / "hashes.txt"
    hashes.write_text(f"{NAME}==1.0 --hash=sha256:{digest}\n")
    task = installing(tmp_path / "made", wheels, *install._hashed(hashes))
    if is_known:
        task.wait()
        assert Runtime(tmp_path / "made").is_complete
    else:
        with pytest.raises(TaskFailedError, match="not the file that this version of the add-on knows"):
            task.wait()
        assert Runtime(tmp_path / "made").is_unfinished


@pytest.mark.parametrize(
    ("file", "requirements"),
    [(runtime.PIP_HASHES, [runtime.PIP]), *((p.hashes, p.requirements) for p in runtime.ALL.values())],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_the_hashes_are_of_the_pinned_packages(file, requirements):
    """`python tools/runtime_hashes.py` makes the files; pip refuses a package that is not in them."""
    locked: dict[str, set[str]] = {}
    for entry in re.split(r"\n(?=[a-z])", file.read_text(encoding="utf-8").partition("\n")[2]):
        first, *hashes = entry.strip().split(" \\\n    ")
        name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)( ; .+)?", first).groups()[:2]
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", value) for value in hashes), first
        locked.setdefault(name, set()).add(version)
    for requirement in requirements:
        name, _, version = requirement.partition(";")[0].strip().replace("_", "-").partition("==")
        assert version in locked[name], "run tools/runtime_hashes.py"
    assert runtime.PIP in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_no_python_here_can_do_it(tmp_path, monkeypatch):
    """Debian's Python without python3-venv has neither ensurepip nor pip."""
    stand_in = tmp_path / "python3.13"
    stand_in.write_text("#!/bin/sh\necho '[[3, 13], true, false, false]'\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(install, "_candidates", lambda: iter([str(tmp_path / "nowhere"), str(stand_in)]))
    with pytest.raises(UserError) as error:
        install.run(["install", str(tmp_path / "made"), "--requirement", NAME])
    assert str(error.value).startswith(f"No Python on this computer can make an environment ({stand_in}: no pip).")
    assert "apt install python3-venv" in str(error.value) and str(error.value).endswith("Then press Install again.")


def test_a_full_disk_is_reported_before_anything_is_downloaded(tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(100, 99, 2_000_000)
    monkeypatch.setattr(install.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"has 2 MB free, and the installation needs .* Free some space"):
        install.run(["install", str(tmp_path / "made")])
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize(
    ("packages", "modules"),
    [
        (runtime.TORCH, environment.TORCH_MODULES),
        # A batch runs the bundled model there, too.
        (runtime.RECOGNISER, (*environment.RECOGNISER_MODULES, "onnxruntime")),
    ],
)
def test_the_pins_are_those_of_constraints(packages, modules):
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in packages.requirements if line not in pins] == []
    named = {line.partition("=")[0].replace("-", "_") for line in packages.requirements}
    assert {*environment.REQUIRED_MODULES, *modules} <= named


def test_pips_output_becomes_progress():
    progress = install.Progress(1_000_000_000)
    lines = [
        ("Looking in indexes: somewhere", "Looking for the Packages", 0.0),
        ("Collecting torch==2.14.1 (from -r x)", "Looking for torch", 0.0),
        ("  Downloading https://somewhere/torch-2.14.1-cp313.whl (800.0 MB)", "Downloading torch (1 MB of about", 0.0),
        ("Progress 400000000 of 800000000", "Downloading torch (400 MB of about 1.0 GB)", 0.3),
        ("  Using cached soxr-1.1.0.whl (200 kB)", "Downloading soxr (800 MB of about 1.0 GB)", 0.6),
        ("  Downloading huge-1.0.whl (3.0 GB)", "Downloading huge (800 MB of about 1.0 GB)", 0.6),
        ("Progress 3000000000 of 3000000000", "Downloading huge (3.8 GB of about 1.0 GB)", 0.75),
        ("Installing collected packages: torch, soxr, huge", "Unpacking 3 Packages (a few Minutes)", 0.75),
        ("Successfully installed torch", "Unpacking 3 Packages (a few Minutes)", 1.0),
    ]
    for line, text, fraction in lines:
        progress.read(line)
        assert progress.text.startswith(text), line
        assert progress.fraction == pytest.approx(fraction, abs=1e-3), line
    assert not progress.read("Looking in links: /nowhere")


def test_sizes_are_told_in_words(tmp_path):
    assert [runtime.in_words(size) for size in (0, 38e6, 1e9, 5.94e9)] == ["1 MB", "38 MB", "1.0 GB", "5.9 GB"]
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"345")
    assert runtime.disk_use(tmp_path) == 5


@pytest.mark.skipif(os.name == "nt", reason="the candidates are shell scripts")
def test_blenders_own_python_comes_first():
    assert next(install._candidates()) == sys.executable


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts")
class TestOtherPrograms:
    def stand_in(self, path: Path, code: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{code}\n")
        path.chmod(0o755)
        return path

    def test_the_new_python_has_an_open_stdin(self, tmp_path):
        """A task ends when its stdin closes, on Windows at once."""
        made = Runtime(tmp_path)
        ended = "bool(select.select([sys.stdin], [], [], 0.5)[0])"
        self.stand_in(
            made.python,
            f"import json, select, sys\nended = {ended}\n"
            "print(json.dumps({'result': {'larger': '' if ended else 'torch', 'trouble': 'Ended.', 'versions': {}}}))",
        )
        assert install._check(made, must_work=True) == {}
        answer = {"error": Text("torch is broken.").to_json()}
        self.stand_in(made.python, f"import json; print(json.dumps({answer!r}))")
        with pytest.raises(UserError, match=r"do not load\. torch is broken\. Remove the runtime and try again\.$"):
            install._check(made, must_work=True)
        with pytest.raises(UserError, match=r"torch is broken\."):
            install._check(Runtime(tmp_path, runtime.RECOGNISER), must_work=True)

    def test_a_folder_in_another_encoding_hides_no_version(self, tmp_path):
        pip = self.stand_in(tmp_path / "pip", r"import os; os.write(1, b'pip 25.1 from C:\\J\xfcrgen (python 3.13)\n')")
        assert install._pip_version([str(pip)]) == (25, 1)
