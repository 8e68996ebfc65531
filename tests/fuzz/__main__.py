# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.fuzz [TARGET …] [--seconds S] [--seed N] [--first N] [--last N] [--output DIR]`.

Fuzzes what the add-on reads; without targets all of them, for an hour together. Failed cases go to DIR.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from . import supervisor, targets  # noqa: TID252


def main() -> int:
    """Run the targets one after the other; 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what the add-on reads.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(targets.TARGETS)}; default: all")
    parser.add_argument("--seconds", type=float, default=3600.0, help="for all targets together (default: 3600)")
    parser.add_argument("--seed", type=int, default=0, help="another seed has other cases (default: 0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--last", type=int, default=10**9, help="number behind the last case")
    parser.add_argument("--output", type=Path, default=Path("out/fuzz"), help="folder for failed cases")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(targets.TARGETS)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    names = arguments.targets or list(targets.TARGETS)
    failed = False
    for name in names:
        needs = targets.TARGETS[name].needs
        if needs and importlib.util.find_spec(needs) is None:
            print(f"{name}: left out, it needs {needs}", flush=True)
            continue
        report = supervisor.run(name, arguments.seed, arguments.seconds / len(names), arguments.first, arguments.last)
        print(supervisor.shown(report), flush=True)
        for failure in report.failures:
            print(f"saved: {supervisor.save_case(failure, arguments.seed, arguments.output)}", flush=True)
        failed = failed or bool(report.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
