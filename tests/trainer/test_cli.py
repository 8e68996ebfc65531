# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line is frozen: scripts and papers name these verbs, options and experiments."""

from __future__ import annotations

import ast
import dataclasses
import os
import string
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from trainer import __main__ as cli  # noqa: E402
from trainer.experiments import MODULES, find, known  # noqa: E402

COMMON = ("experiment", "--data", "--out", "--device", "--resume")
OPTIONS = {
    "prepare": COMMON,
    "pretrain-hubert": (*COMMON, "--hubert"),
    "pretrain": (*COMMON, "--hubert"),
    "pretrain-prior": COMMON,
    "finetune": (*COMMON, "--hubert", "--wav2sem", "--prior"),
    "evaluate": (*COMMON, "--model"),
    "analyze": (*COMMON, "--model"),
    "export": COMMON,
}


def options_of_verbs() -> dict[str, tuple[str, ...]]:
    verbs = next(action for action in cli._parser()._actions if action.dest == "verb")
    actions = {name: parser._actions[1:] for name, parser in verbs.choices.items()}
    return {name: tuple((a.option_strings or [a.dest])[-1] for a in some) for name, some in actions.items()}


def test_verbs_and_options_are_frozen() -> None:
    options = options_of_verbs()
    assert options.pop(cli.CHECK_HOST) == ("kind", "file")
    assert options == OPTIONS
    assert MODULES.keys() == OPTIONS.keys()


@pytest.mark.parametrize("verb", OPTIONS)
def test_every_experiment_is_a_frozen_keyword_only_dataclass(verb) -> None:
    experiments = known(verb)
    assert verb == "export" or "smoke" in experiments
    for name, function in experiments.items():
        config = find(verb, name)
        assert type(config).__dataclass_params__.frozen
        assert all(field.kw_only for field in dataclasses.fields(config))
        assert function.__doc__ and function() == config


@pytest.mark.parametrize("verb", OPTIONS)
def test_help_shows_an_example_that_parses(verb, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([verb, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    example = text.rpartition("python -m trainer ")[2].split()
    assert cli._parser().parse_args(example).verb == verb
    find(verb, example[1])
    for name in known(verb):
        assert name in text


def test_help_costs_no_torch() -> None:
    program = (
        "import sys, trainer.__main__ as m\ntry: m.main(['pretrain', '-h'])\nfinally: print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


def test_an_experiment_of_ones_own(tmp_path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        textwrap.dedent(
            """
            from dataclasses import replace
            from trainer.experiments.wav2sem import bundled

            def longer():
                return replace(bundled(), seed=7)

            def wrong():
                return 3
            """
        )
    )
    assert find("pretrain", f"{own}:longer").seed == 7
    with pytest.raises(ValueError, match="returns int, `pretrain` needs"):
        find("pretrain", f"{own}:wrong")
    with pytest.raises(ValueError, match="has no function absent"):
        find("pretrain", f"{own}:absent")
    with pytest.raises(ValueError, match="nowhere"):
        find("pretrain", "nowhere.to.be:found")


def test_user_errors_are_one_line(tmp_path, capsys) -> None:
    where = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(["pretrain", "nonesuch", *where]) == 1
    error = capsys.readouterr().err
    assert error.startswith("trainer: experiment 'nonesuch': `pretrain` has ") and error.count("\n") == 1
    assert cli.main(["pretrain", "smoke", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "none: there is no such folder; check --data" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_fault_of_ours_is_an_internal_error_with_the_place_of_the_log(tmp_path) -> None:
    program = textwrap.dedent(
        """
        import sys, trainer.__main__ as cli

        def planted(verb, name):
            raise ValueError("operands could not be broadcast together")

        cli.find = planted
        sys.exit(cli.main(["pretrain", "smoke", "--data", ".", "--out", "out"]))
        """
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "TEMP": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    log = tmp_path / "wav2sem_errors.log"
    assert run.returncode == 1
    assert run.stderr == (
        "trainer: Internal error (ValueError: operands could not be broadcast together). "
        f"Please report it with the end of {log}.\n"
    )
    assert "in planted\n" in log.read_text()


def test_every_message_has_exactly_the_values_that_it_names() -> None:
    """A missing value would hide the user's fault behind a KeyError."""
    checked = 0
    for path in sorted((Path(cli.__file__).parent).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("UserError", "MissingFileError"):
                template = ast.literal_eval(node.args[0])
                named = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
                assert named == {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"
                checked += 1
    assert checked > 100
