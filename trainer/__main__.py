# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer VERB …`: from the corpora on disk to the model in the extension.

The bundled model, from beginning to end:

    python -m trainer prepare basis  --data ../shared/data --out work
    python -m trainer prepare speech --data ../shared/data --out work
    python -m trainer prepare motion --data ../shared/data --out work
    python -m trainer prepare driven --data work --out work
    python -m trainer pretrain-hubert bundled_hubert --data work --out work/hubert
    python -m trainer pretrain bundled_wav2sem --data work --out work/wav2sem --hubert work/hubert
    python -m trainer finetune bundled_face --data work --out work/face --hubert work/hubert --wav2sem work/wav2sem
    python -m trainer export work/face --data work --out wav2sem_blender/assets/models/default
    python -m trainer evaluate default --data work --out work/evaluation
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; user errors become one line and exit code 1."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"trainer: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    prepare = _verb(
        verbs, "prepare", _prepare, "make training data: the basis, speech with phone times, captured and driven motion"
    )
    prepare.add_argument("what", choices=("basis", "speech", "motion", "driven"))
    prepare.add_argument("--synthetic", type=int, default=1800, help="clips to synthesise with flite (speech only)")
    prepare.add_argument("--seed", type=int, default=0)
    for name, run, text in (
        ("pretrain-hubert", _pretrain_hubert, "the speech encoder: masked prediction of phones"),
        ("pretrain", _pretrain, "Wav2Sem: audio into a text model's sentence space"),
        ("finetune", _finetune, "the face model on captured motion"),
    ):
        verb = _verb(verbs, name, run, text)
        verb.add_argument("experiment", help="name of a function in trainer/experiments.py")
        verb.add_argument("--device", default="cpu")
        if name != "pretrain-hubert":
            verb.add_argument("--hubert", type=Path, required=name == "finetune", help="a pretrain-hubert run")
        if name == "finetune":
            verb.add_argument("--wav2sem", type=Path, required=True, help="a pretrain run")
    export = _verb(verbs, "export", _export, "a run becomes a folder that the extension loads")
    export.add_argument("run_folder", type=Path, metavar="RUN")
    evaluate = _verb(verbs, "evaluate", _evaluate, "errors of a model folder on what was held out")
    evaluate.add_argument("model", help='a model folder, or "default"')
    evaluate.add_argument("--semantic-strength", type=float, default=1.0)
    return parser


def _verb(verbs: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.set_defaults(run=run)
    verb.add_argument("--data", type=Path, required=True, help="prepared data (corpora for `prepare`)")
    verb.add_argument("--out", type=Path, required=True)
    return verb


def _experiment(name: str, kind: type) -> Any:
    from . import experiments

    function = getattr(experiments, name, None)
    config = function() if callable(function) and name.islower() else None
    if not isinstance(config, kind):
        known = [n for n in dir(experiments) if n.startswith(("bundled_", "smoke_"))]
        fitting = [n for n in known if isinstance(getattr(experiments, n)(), kind)]
        raise ValueError(f"experiment {name!r}: for this verb there are {', '.join(fitting)}")
    return config


def _prepare(arguments: argparse.Namespace) -> None:
    if not arguments.data.is_dir():
        raise FileNotFoundError(f"{arguments.data}: no such folder; --data names the corpora's folder")
    if arguments.what == "basis":
        from .basis import main as basis

        arguments.out.mkdir(parents=True, exist_ok=True)
        if basis(["--data", str(arguments.data), "--out", str(arguments.out / "basis.npz")]):
            raise ValueError("the basis was not made")
    elif arguments.what == "speech":
        from .speech import prepare_speech

        prepare_speech(arguments.data, arguments.out / "speech", arguments.synthetic, arguments.seed)
    elif arguments.what == "driven":
        from .driven import prepare_driven

        prepare_driven(arguments.data, arguments.out / "driven", arguments.seed)
    else:
        from .curves import prepare_motion

        prepare_motion(arguments.data, arguments.out / "basis.npz", arguments.out / "motion")


def _pretrain_hubert(arguments: argparse.Namespace) -> None:
    from .experiments import PretrainHubert
    from .pretrain_hubert import pretrain_hubert
    from .runs import Run

    experiment = _experiment(arguments.experiment, PretrainHubert)
    pretrain_hubert(experiment, arguments.data, Run(arguments.out, arguments.experiment, experiment, arguments.device))


def _pretrain(arguments: argparse.Namespace) -> None:
    from .experiments import PretrainWav2Sem
    from .pretrain import pretrain
    from .runs import Run

    experiment = _experiment(arguments.experiment, PretrainWav2Sem)
    run = Run(arguments.out, arguments.experiment, experiment, arguments.device)
    pretrain(experiment, arguments.data, run, arguments.hubert)


def _finetune(arguments: argparse.Namespace) -> None:
    from .experiments import Finetune
    from .finetune import finetune
    from .runs import Run

    experiment = _experiment(arguments.experiment, Finetune)
    run = Run(arguments.out, arguments.experiment, experiment, arguments.device)
    finetune(experiment, arguments.data, run, arguments.hubert, arguments.wav2sem)


def _export(arguments: argparse.Namespace) -> None:
    from .export import export_run

    folder = export_run(arguments.run_folder, arguments.data, arguments.out)
    size_mb = sum(path.stat().st_size for path in folder.path.iterdir()) / 1e6
    print(f"{folder.path}: {size_mb:.1f} MB, {len(folder.config.channels)} channels")


def _evaluate(arguments: argparse.Namespace) -> None:
    from .evaluate import evaluate

    evaluate(arguments.model, arguments.data, arguments.out, arguments.semantic_strength)


if __name__ == "__main__":
    sys.exit(main())
