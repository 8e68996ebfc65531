# SPDX-License-Identifier: GPL-3.0-or-later
"""`nox -s demo`: the demo head speaks, is filmed, and its mouth is measured."""
