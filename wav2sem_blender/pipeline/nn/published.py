# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights under their published names, for the `from_published` of every host."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from torch import Tensor, nn

from ...errors import UserError

Network = TypeVar("Network", bound=nn.Module)


def own_weights(state: Mapping[str, Tensor], prefix: str = "", others: Collection[str] = ()) -> dict[str, Tensor]:
    """The weights below a released prefix, without it, and without those whose names start with one of `others`."""
    return {
        name: value
        for name, value in ((key.removeprefix(prefix), value) for key, value in state.items() if key.startswith(prefix))
        if not name.startswith(tuple(others))
    }


def need(state: Mapping[str, Tensor], name: str) -> Tensor:
    """A weight whose shape gives a size of the network; UserError if it is missing."""
    if name not in state:
        raise UserError("the weight {name} is missing; this is another model's file", name=name)
    return state[name]


def loaded(network: Network, state: Mapping[str, Tensor]) -> Network:
    """The network with these weights, in eval mode.

    Raises:
        UserError: A weight is missing, unknown or of another shape; the message names it.
    """
    expected = network.state_dict()
    for name in sorted(expected.keys() - state.keys()):
        need(state, name)
    for name, value in state.items():
        if name not in expected:
            raise UserError("the weight {name} is unknown; this is another model's file", name=name)
        if value.shape != expected[name].shape:
            raise UserError(
                "the weight {name} has the shape {found}; {expected} is expected",
                name=name,
                found=tuple(value.shape),
                expected=tuple(expected[name].shape),
            )
    network.load_state_dict(state)
    return network.eval()
