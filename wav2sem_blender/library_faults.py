# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells from an exception that a library is missing, damaged or does not fit this machine. Standard library only.

Any library of a command line, the worker or the trainer can be found and still not load: a DLL is missing, half of a
package was removed, or it was built for another version of its neighbour. It then raises anything from ImportError to
AttributeError, at its first import or, if it imports lazily, at its first use. So nobody checks each library before its
use; the place that reports errors asks here what an exception means.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

# Ours, what Blender and the tests name us, and the program itself.
_OWN = frozenset(
    ("wav2sem_blender", "trainer", "tools", "tests", "bl_ext", "__main__", "__mp_main__", __name__.partition(".")[0])
)
_PACKAGES = {"sklearn": "scikit-learn", "PIL": "pillow", "_cffi_backend": "cffi", "yaml": "pyyaml"}
_DLL = re.compile(r"DLL load failed|\.dll\b|WinError (126|127|193|1114)\b", re.IGNORECASE)
_MAX_REASON = 300
_MAX_CAUSES = 20


@dataclass(frozen=True, kw_only=True)
class LibraryFault:
    """What is wrong with a library.

    Attributes:
        library: Its name, as it is imported.
        package: Its name, as it is installed.
        reason: What the system or the library says; empty if it is not installed.
        lacks_runtime: Whether Microsoft's C++ runtime is missing or too old, as far as that can be told.
    """

    library: str
    package: str
    reason: str
    lacks_runtime: bool

    @property
    def is_missing(self) -> bool:
        """Whether it is not installed at all."""
        return not self.reason


def fault_of(error: BaseException) -> LibraryFault | None:
    """The library that raised `error` because it could not be loaded; None if that was not the reason."""
    for cause in causes(error):
        library = next(filter(_is_foreign, _names(cause)), "").partition(".")[0]
        if library:
            break
    else:
        return None
    reason = _reason(error)
    deepest = list(causes(error))[-1]
    if isinstance(deepest, ModuleNotFoundError) and deepest.name == library and library not in sys.modules:
        reason = ""
    return LibraryFault(
        library=library,
        package=_PACKAGES.get(library, library),
        reason=reason,
        lacks_runtime=bool(reason) and (sys.platform == "win32" or _DLL.search(reason) is not None),
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    for _ in range(_MAX_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__


def _names(error: BaseException) -> Iterator[str]:
    """Modules that may be at fault: those that were being imported, and that which lacks a name."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":  # a module is run only while it is imported
            yield str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    if isinstance(error, ImportError) and error.name:
        yield error.name
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        yield error.obj.__name__


def _is_foreign(name: str) -> bool:
    top = name.partition(".")[0]
    return bool(top) and top not in _OWN and top not in sys.stdlib_module_names


def _reason(error: BaseException) -> str:
    """The first line of the deepest cause: NumPy's own message, for one, is a page of advice."""
    deepest = list(causes(error))[-1]
    lines = [line.strip() for line in str(deepest).splitlines() if line.strip()]
    return (lines[0] if lines else type(deepest).__name__)[:_MAX_REASON].rstrip(".")
