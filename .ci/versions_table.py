# SPDX-License-Identifier: GPL-3.0-or-later
"""Make docs/versions.md, the table of tested Blender versions, from the records that the tests wrote.

    nox -s blender && nox -s gui && python .ci/versions_table.py

Both sessions write their records (tests/versions.py) to out/versions/, the only source of the table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "out" / "versions"
TABLE = ROOT / "docs" / "versions.md"
# From a check to its column's title.
COLUMNS = {
    "zip": "zip installed, animates",
    "repository": "subscribed, animates",
    "tests": "tests/blender",
    "window": "scenarios in a window",
}
INTRODUCTION = """# Blender versions tested

`python .ci/versions_table.py` makes this file from the tests' records; do not edit it. `nox -s blender` installs the
extension's zip in Blender's Python module and runs `tests/blender`. `nox -s gui` does the same in the program, with its
window, and also subscribes to a repository. A dash means that the check does not exist there or was not run.
"""

Record = dict[str, object]


def cell(counts: dict[str, int]) -> str:
    """Return one check's outcome in words, without a number for a single pass."""
    if counts == {"passed": 1}:
        return "passed"
    failed = {"failed": counts.get("failed", 0) + counts.get("error", 0)}
    shown = {name: number for name, number in (counts | failed).items() if number and name != "error"}
    text = ", ".join(f"{number} {name}" for name, number in shown.items())
    return f"**{text}**" if failed["failed"] else text


def table(records: list[Record]) -> str:
    """Return the document: one row per Blender, the oldest first."""
    rows: dict[tuple[str, ...], dict[str, Record]] = {}
    for record in records:
        key = tuple(str(record[name]) for name in ("blender", "run_as", "python", "system"))
        rows.setdefault(key, {})[str(record["check"])] = record
    titles = ["Blender", "run as", "Python", "system", *COLUMNS.values(), "date"]
    lines = [INTRODUCTION, f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for key in sorted(rows, key=lambda key: ([int(part) for part in key[0].split()[0].split(".")], key)):
        outcomes = [cell(rows[key][check]["counts"]) if check in rows[key] else "–" for check in COLUMNS]
        date = max(str(record["date"]) for record in rows[key].values())
        lines.append(f"| {' | '.join([*key, *outcomes, date])} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the document; returns the exit status."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RECORDS.glob("*.json"))]
    if not records:
        print(f"{RECORDS} has no records; nox -s blender and nox -s gui write them.", file=sys.stderr)
        return 1
    TABLE.write_text(table(records), encoding="utf-8")
    print(f"{TABLE}: {len(records)} records")
    return 0


if __name__ == "__main__":
    sys.exit(main())
