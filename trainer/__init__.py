# SPDX-License-Identifier: GPL-3.0-or-later
"""Training: `python -m trainer VERB …`."""
