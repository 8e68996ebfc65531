# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments: functions that return a whole frozen config; a variant is a `dataclasses.replace` of another.

Each verb has a module here. `python -m trainer VERB NAME` takes one of its functions; `package.module:function` and
`file.py:function` take your own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from wav2sem_blender import import_path
from wav2sem_blender.errors import UserError

MODULES = {
    "prepare": "preparation",
    "pretrain-hubert": "hubert",
    "pretrain": "wav2sem",
    "pretrain-prior": "prior mead_prior",
    "finetune": "face hosts imitator facediffuser unitalker mead",
    "evaluate": "evaluation",
    "analyze": "analysis",
    "export": "export",
}


def known(verb: str) -> dict[str, Any]:
    """The verb's own experiments (functions) by name."""
    modules = [importlib.import_module(f"{__name__}.{name}") for name in MODULES[verb].split()]
    return {function.__name__: function for module in modules for function in module.EXPERIMENTS}


def find(verb: str, name: str) -> Any:
    """The config of an experiment.

    Raises:
        UserError: there is none of that name, or the function returns another verb's config.
    """
    source, separator, function_name = name.rpartition(":")
    own = known(verb)
    if not separator:
        if name not in own:
            raise UserError(
                "experiment {name!r}: `{verb}` has {own}; your own is file.py:function",
                name=name,
                verb=verb,
                own=", ".join(own),
            )
        return own[name]()
    function = getattr(_load(source, name), function_name, None)
    if not callable(function):
        raise UserError(
            "experiment {name!r}: {source} has no function {function_name}",
            name=name,
            source=source,
            function_name=function_name,
        )
    config = function()
    kinds = {type(experiment()) for experiment in own.values()}
    if type(config) not in kinds:
        wanted = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise UserError(
            "experiment {name!r}: returns {found}, `{verb}` needs {wanted}",
            name=name,
            found=type(config).__name__,
            verb=verb,
            wanted=wanted,
        )
    return config


def _load(source: str, name: str) -> ModuleType:
    import_path.add_current_folder()
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        specification = importlib.util.spec_from_file_location(Path(source).stem, source)
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[specification.name] = module  # dataclasses look up their module
        specification.loader.exec_module(module)
        return module
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError("experiment {name!r}: {error}", name=name, error=error) from error
