# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer VERB EXPERIMENT --data D --out O`: from corpora on disk to a model for the extension.

The paper's recipe, from start to end (docs/training.md describes the folders):

    python -m trainer pretrain paper          --data LibriSpeech --out work/wav2sem
    python -m trainer finetune vocaset_wav2sem --data VOCASET    --out work/face --wav2sem work/wav2sem
    python -m trainer evaluate vocaset        --data VOCASET     --out work/evaluation --model work/face/model

EXPERIMENT is a function that returns a whole frozen config: one of trainer/experiments/ by its name, or your own as
`file.py:function`. The same commands run on several processes under `torchrun` or `accelerate launch`.
"""

from __future__ import annotations

import sys

from wav2sem_blender import import_path

if __name__ == "__main__":
    import_path.leave_out_current_folder()

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wav2sem_blender import streams, threads
from wav2sem_blender.errors import MissingFileError, UserError, is_out_of_memory, report
from wav2sem_blender.library_faults import fault_of

from .experiments import find, known


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; errors become one line and exit code 1."""
    return streams.guarded(lambda: _reported(argv), _complain)


def _complain(message: str) -> None:
    print(f"trainer: {message}", file=sys.stderr)


def _reported(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        if arguments.verb == CHECK_HOST:
            from .host_checks import main as check_host

            return check_host(arguments.kind, arguments.file)
        config = find(arguments.verb, arguments.experiment)
        if not arguments.data.exists():
            raise MissingFileError("{data}: there is no such folder; check --data", data=arguments.data)
        arguments.run(config, arguments)
    except Exception as error:
        _complain(_sentence(error))
        return 1
    except KeyboardInterrupt:
        _complain("stopped; continue with the same command and --resume")
        return 130
    return 0


def _sentence(error: Exception) -> str:
    fault = None if isinstance(error, UserError) else fault_of(error)
    if fault is not None and fault.is_missing:
        return f"{fault.library} is not installed; pip install -e '.[train]'"
    if is_out_of_memory(error) and not isinstance(error, UserError):
        return "there is not enough memory; close other programs, or use an experiment with smaller batches"
    return report(error)


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb of the command line; `stages` are options that name what earlier verbs made."""

    name: str
    run: Callable[[Any, argparse.Namespace], None]
    text: str
    data: str
    example: str
    stages: tuple[tuple[str, str], ...] = ()


def _prepare(config: Any, arguments: argparse.Namespace) -> None:
    from .loops.prepare import prepare

    prepare(config, arguments.data, arguments.out)


def _train(module: str, function: str) -> Callable[[Any, argparse.Namespace], None]:
    def train(config: Any, arguments: argparse.Namespace) -> None:
        from importlib import import_module

        from .runs.run import Run

        run = Run(
            arguments.out,
            verb=arguments.verb,
            name=arguments.experiment,
            config=config,
            device=arguments.device,
            resume=arguments.resume,
        )
        try:
            stages = {
                name: getattr(arguments, name) for name in ("hubert", "wav2sem", "prior") if hasattr(arguments, name)
            }
            getattr(import_module(f".loops.{module}", __package__), function)(config, arguments.data, run, **stages)
        finally:
            run.close()

    return train


def _evaluate(config: Any, arguments: argparse.Namespace) -> None:
    from .analysis.protocol import CompareHosts

    _refuse_finished(arguments.out / "results.json", arguments.resume)
    if isinstance(config, CompareHosts):
        from .analysis.table1 import compare_hosts

        compare_hosts(config, arguments.data, arguments.out, Path(arguments.model), arguments.device)
        return
    from .evaluation.evaluate import evaluate

    evaluate(config, arguments.data, arguments.out, arguments.model, arguments.device)


def _analyze(config: Any, arguments: argparse.Namespace) -> None:
    from .analysis.analyze import analyze

    _refuse_finished(arguments.out / "report.html", arguments.resume)
    analyze(config, arguments.data, arguments.out, arguments.model.split(","), arguments.device)


def _export(config: Any, arguments: argparse.Namespace) -> None:
    from .loops.export import export

    _refuse_finished(arguments.out / "config.json", arguments.resume)
    folder = export(config, arguments.data, arguments.out)
    size_mb = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{folder}: {size_mb:.1f} MB")


def _refuse_finished(made: Path, resume: bool) -> None:
    if made.exists() and not resume:
        raise UserError("{made} exists already; overwrite it with --resume, or choose another --out", made=made)


_HUBERT = ("hubert", "a pretrain-hubert run")
_WAV2SEM = ("wav2sem", "a pretrain run, or an imported Wav2Sem")
_PRIOR = ("prior", "a pretrain-prior run or a published stage-1 file, for hosts of two stages; or the model to adapt")
_MODEL = ("model", 'a model folder, a finetune run\'s RUN/model, or "default"')
VERBS = (
    Verb(
        name="prepare",
        run=_prepare,
        text="prepare the data that later stages read",
        data="the corpora's folder",
        example="prepare basis --data ../shared/data --out work",
    ),
    Verb(
        name="pretrain-hubert",
        run=_train("pretrain_hubert", "pretrain_hubert"),
        text="train the phone-level encoder, by HuBERT's masked prediction",
        data="a LibriSpeech root, or prepared speech",
        example="pretrain-hubert base_mfcc --data LibriSpeech --out work/hubert1",
        stages=(_HUBERT,),
    ),
    Verb(
        name="pretrain",
        run=_train("pretrain", "pretrain"),
        text="train Wav2Sem, which maps an utterance's audio into a text model's sentence space",
        data="a LibriSpeech root, or prepared speech",
        example="pretrain paper --data LibriSpeech --out work/wav2sem",
        stages=(_HUBERT,),
    ),
    Verb(
        name="pretrain-prior",
        run=_train("pretrain_prior", "pretrain_prior"),
        text="train stage 1 of a host that has two, a codec of motion",
        data="VOCASET, BIWI or a custom layout",
        example="pretrain-prior codetalker_vocaset --data VOCASET --out work/prior",
    ),
    Verb(
        name="finetune",
        run=_train("finetune", "finetune"),
        text="train the face model: FaceFormer with Wav2Sem on motion data",
        data="VOCASET, BIWI, a custom layout, or prepared speech and motion",
        example="finetune vocaset_wav2sem --data VOCASET --out work/face --wav2sem work/wav2sem",
        stages=(_HUBERT, _WAV2SEM, _PRIOR),
    ),
    Verb(
        name="evaluate",
        run=_evaluate,
        text="compute a model's LVE, MVE and FDD, with controls, beside the published rows",
        data="the motion data that finetune read",
        example="evaluate vocaset --data VOCASET --out work/evaluation --model work/face/model",
        stages=(_MODEL,),
    ),
    Verb(
        name="analyze",
        run=_analyze,
        text="write one HTML report with near-homophones and pictures",
        data="speech with phone or word times, and motion if there is any",
        example="analyze librispeech --data LibriSpeech --out work/analysis --model work/face/model",
        stages=(("model", _MODEL[1] + "; several with commas"),),
    ),
    Verb(
        name="export",
        run=_export,
        text="convert a finetune run to a folder for the extension, or to an official-format file",
        data="the finetune run's folder",
        example="export bundled --data work/face --out wav2sem_blender/assets/models/default",
    ),
)
CHECK_HOST = "check-host"


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__, formatter_class=layout)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        summaries = [f"  {name:<20} {function.__doc__.splitlines()[0]}" for name, function in known(verb.name).items()]
        epilog = "experiments:\n" + "\n".join(summaries) + f"\n\nexample:\n  python -m trainer {verb.example}"
        command = verbs.add_parser(
            verb.name, help=verb.text, description=verb.text, epilog=epilog, formatter_class=layout
        )
        command.set_defaults(run=verb.run)
        command.add_argument("experiment", metavar="EXPERIMENT", help="a name below, or file.py:function")
        command.add_argument("--data", type=Path, required=True, help=verb.data)
        command.add_argument("--out", type=Path, required=True, help="the folder to write")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
        command.add_argument("--resume", action="store_true", help="continue in an --out that was begun")
        for name, text in verb.stages:
            options, kind = ([f"--{name}"], Path) if name != "model" else (["--models", "--model"], str)
            command.add_argument(*options, dest=name, type=kind, required=name == "model", help=text)
    text = "compare a host with outputs of its released code, on the weights of a golden file"
    check = verbs.add_parser(CHECK_HOST, help=text, description=text)
    check.add_argument("kind", metavar="KIND", help="name of the file as it was made, such as codetalker_biwi_stage2")
    check.add_argument("file", metavar="FILE.npz", type=Path)
    return parser


if __name__ == "__main__":
    threads.limit()
    sys.exit(main())
