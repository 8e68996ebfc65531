# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `export`."""

from __future__ import annotations

from ..loops.face_recipes import Export


def bundled() -> Export:
    """For the extension: runs without torch."""
    return Export()


def torch() -> Export:
    """For the torch engine: exactly the trained weights, without ONNX files."""
    return Export(onnx=False, half_basis=False)


def official() -> Export:
    """For the official code: a state dict with the released names and shapes."""
    return Export(official=True)


def smoke() -> Export:
    """As `bundled`."""
    return bundled()


EXPERIMENTS = (bundled, torch, official, smoke)
