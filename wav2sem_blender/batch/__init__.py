# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten thousand lines in a night: a manifest, warm workers, a report. `run` has the steps in a row; read it first."""
