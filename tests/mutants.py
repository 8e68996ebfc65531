# SPDX-License-Identifier: GPL-3.0-or-later
"""Change one operator, number or name of a module at a time, and see whether a test fails: the mutation score.

    python -m pip install cosmic-ray==8.7.0      # makes the mutants; install it beside the packages of the tests
    python tests/mutants.py [MODULE ...] [--most 150] [--seed 0] [--out out/mutants.json]

Each mutant is tested in a fork of this process, in which NumPy, torch and pytest are loaded: it costs no more than its
tests. No file is changed; an import hook hands out the mutant. Mutants that differ in annotations alone are left out.
POSIX only.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import difflib
import importlib
import importlib.machinery
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Module -> its tests; the first failure ends a mutant's run, so the quickest come first.
TESTS = {
    "infer": ("test_main_path", "test_listening", "test_infer", "test_sentence_vectors"),
    "listening": ("test_listening", "test_main_path", "test_sentence_vectors", "test_infer"),
    "windows": ("test_windows", "test_main_path", "test_infer"),
    "hosts/faceformer": ("test_faceformer_values", "test_decoder", "test_main_path", "test_official"),
    "audio": ("test_audio_values", "test_audio"),
    "motion": ("test_motion_values", "test_motion"),
    "retarget": ("test_motion_values", "test_retarget", "test_visemes"),
    "frame_timing": ("test_windows", "test_nn"),
}
# Slow, or in a process of their own, where there is no mutant.
NOT_THESE = "not an_hour_needs and not torch_engine_agrees and not full_disk"
LOADED_BEFORE = ("numpy", "onnxruntime", "pytest", "safetensors.numpy", "soundfile", "soxr", "torch")


def mutants(source: str) -> list[str]:
    """The mutants of a module, each once."""
    import cosmic_ray.plugins
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    tree, seen, found = get_ast(source), {_without_annotations(source)}, []
    for name in sorted(cosmic_ray.plugins.operator_names()):
        operator_class = cosmic_ray.plugins.get_operator(name)
        if operator_class.arguments():
            continue
        operator = operator_class()
        for occurrence in range(sum(len(list(operator.mutation_positions(node))) for node in ast_nodes(tree))):
            with contextlib.suppress(SyntaxError, AttributeError):  # cosmic-ray fails at `except (*ERRORS, ...)`
                mutant = mutate_code(source, operator, occurrence)
                if (meaning := _without_annotations(mutant)) not in seen:
                    seen.add(meaning)
                    found.append(mutant)
    return found


def _without_annotations(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Name("Any")
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
    return ast.dump(tree)


def survives(path: Path, source: str, tests: list[str], limit_s: float) -> bool:
    """Whether all tests pass within the limit when `path` holds `source`."""
    pid = os.fork()
    if not pid:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 2)
        failed = True
        try:
            failed = _run_tests(path, source, tests) != 0
        finally:
            os._exit(failed)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def _run_tests(path: Path, source: str, tests: list[str]) -> int:
    import pytest

    loader = importlib.machinery.SourceFileLoader
    on_disk = loader.get_code

    def get_code(self, fullname):
        mutated = Path(self.path) == path
        return compile(source, self.path, "exec", dont_inherit=True) if mutated else on_disk(self, fullname)

    loader.get_code = get_code  # type: ignore[method-assign]
    return pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", NOT_THESE, *tests])


def score(module: str, most: int, seed: int, pool: concurrent.futures.Executor) -> list[str]:
    """Test `most` mutants drawn at random; returns what survived, as diffs."""
    path = ROOT / "wav2sem_blender" / "pipeline" / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    tests = [str(ROOT / "tests" / "unit" / f"{name}.py") for name in TESTS[module]]
    begin = time.monotonic()
    if not survives(path, source, tests, 300):
        sys.exit(f"{module}: its tests fail without a mutant; run them first")
    limit_s = 10 + 5 * (time.monotonic() - begin)
    everything = mutants(source)
    drawn = random.Random(seed).sample(everything, min(most, len(everything)))
    results = pool.map(lambda mutant: survives(path, mutant, tests, limit_s), drawn)
    survivors = [mutant for mutant, survived in zip(drawn, results, strict=True) if survived]
    print(f"{module}: {len(drawn) - len(survivors)} of {len(drawn)} killed; {len(everything)} exist", flush=True)
    lines = source.splitlines()
    return ["\n".join(list(difflib.unified_diff(lines, m.splitlines(), lineterm="", n=0))[2:]) for m in survivors]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(TESTS), help=", ".join(TESTS))
    parser.add_argument("--most", type=int, default=150, help="mutants of a module, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "mutants.json", help="the survivors")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    sys.path.insert(0, str(ROOT))
    for name in LOADED_BEFORE:
        importlib.import_module(name)
    found: dict[str, list[str]] = {}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for module in arguments.modules:
            found[module] = score(module, arguments.most, arguments.seed, pool)
            arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
