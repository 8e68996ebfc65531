# SPDX-License-Identifier: GPL-3.0-or-later
"""The formats in which curves and words are written; `delivery` writes them.

Standard library only: `--help` names them.
"""

SUFFIXES = {"npz": ".npz", "csv": ".csv", "table": ".table.csv", "textgrid": ".TextGrid"}
"""Everything, Live Link Face's columns, one column for each curve; the words and phones."""
