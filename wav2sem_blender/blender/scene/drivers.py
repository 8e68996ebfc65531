# SPDX-License-Identifier: GPL-3.0-or-later
"""What a driver computes, read without running Python: which controls move a shape key, and how far.

A driver's expression may come from a stranger's file, so it is not handed to `eval`: arithmetic is computed from its
syntax tree, and anything else counts as unknown.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import bpy
import numpy as np

from . import controls
from .controls import Control

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(math, name)
        for name in ("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sqrt", "exp", "log")
    },
    **{name: getattr(math, name) for name in ("fabs", "floor", "ceil", "fmod", "radians", "degrees")},
    **{"abs": abs, "min": min, "max": max, "round": round, "float": float, "int": int, "bool": bool},
    "clamp": lambda x, low=0.0, high=1.0: min(max(x, low), high),
    "lerp": lambda a, b, share: a + (b - a) * share,
}
_CONSTANTS = {"pi": math.pi, "e": math.e, "True": 1.0, "False": 0.0}
# A key at this value or more is moved fully; less than the second is not moved.
_FULL, _MOVED = 1 - 1e-6, 0.05
_STEPS = [2.0**power for power in range(-12, 11)]
_TRANSFORMS = {
    f"{short}_{axis}": (name, index)
    for short, name in (("LOC", "location"), ("ROT", "rotation_euler"), ("SCALE", "scale"))
    for index, axis in enumerate("XYZ")
}


class UnknownError(Exception):
    """An expression, or what it reads, is not simple enough to be known."""


class CircularError(Exception):
    """Drivers that read each other; the argument is the control at which that was found."""


@dataclass(frozen=True)
class Source:
    """A control that moves a key; `effect` is the key's value for a value of the control."""

    rig: bpy.types.Object
    control: Control
    effect: Callable[[float], float]

    def solved(self) -> tuple[float, float]:
        """The smallest distance from rest at which the key is at 1, or as far as it goes; and the key's value there."""
        rest = controls.rest(self.rig, self.control)
        at_rest = self.effect(rest)
        best = (0.0, at_rest)
        for step in _STEPS:
            for sign in (1, -1):
                reached = self.effect(rest + sign * step)
                if reached >= _FULL:
                    return _bisected(self.effect, rest, sign * step), 1.0
                if reached > best[1] + 1e-9:
                    best = sign * step, reached
        return best if best[1] - at_rest > _MOVED else (0.0, at_rest)


def _bisected(effect: Callable[[float], float], rest: float, far: float) -> float:
    low, high = 0.0, far
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if effect(rest + middle) >= _FULL else (middle, high)
    return float(f"{high:.5g}")


class Reader:
    """Follows drivers to the controls that they read. It refers to Blender's data: make a new one each time."""

    def __init__(self) -> None:
        """Begin without any index."""
        self._drivers: dict[int, dict[str, Any]] = {}

    def sources(self, curve: Any, visited: frozenset[tuple[int, str]] = frozenset()) -> Iterator[Source]:
        """The controls that a driver reads, through other drivers too.

        Raises:
            CircularError: Drivers read each other.
        """
        inputs = {variable.name: _value_now(variable) for variable in curve.driver.variables}
        for variable in curve.driver.variables:
            for rig, control, inner in self._read(variable, visited):
                yield Source(rig, control, _effect(curve, inputs, variable.name, inner))

    def _read(
        self, variable: Any, visited: frozenset[tuple[int, str]]
    ) -> Iterator[tuple[bpy.types.Object, Control, Callable[[float], float]]]:
        """The controls that a variable reads, and its value for a value of each."""
        target = variable.targets[0]
        if target.id is None:
            return
        if variable.type == "TRANSFORMS":
            if target.bone_target and target.transform_space == "LOCAL_SPACE" and target.transform_type in _TRANSFORMS:
                control = Control(target.bone_target, *_TRANSFORMS[target.transform_type])
                yield from self._followed(target.id, control.address, visited)
        elif variable.type == "SINGLE_PROP":
            yield from self._followed(target.id, target.data_path, visited)

    def _followed(
        self, block: Any, path: str, visited: frozenset[tuple[int, str]]
    ) -> Iterator[tuple[bpy.types.Object, Control, Callable[[float], float]]]:
        """A control itself, or those that drive it."""
        place = (block.session_uid, path)
        if place in visited:
            raise CircularError(path)
        curve = self._driver(block, path)
        if curve is not None:
            for source in self.sources(curve, visited | {place}):
                yield source.rig, source.control, source.effect
            return
        control = controls.parsed(path)
        if control is not None and isinstance(block, bpy.types.Object) and controls.holder(block, control) is not None:
            yield block, control, lambda value: value

    def _driver(self, block: Any, path: str) -> Any:
        if block.session_uid not in self._drivers:
            found = self._drivers[block.session_uid] = {}
            animation = block.animation_data
            for curve in animation.drivers if animation is not None else ():
                found[curve.data_path] = found[f"{curve.data_path}[{curve.array_index}]"] = curve
        return self._drivers[block.session_uid].get(path)


def _effect(
    curve: Any, inputs: Mapping[str, float], name: str, inner: Callable[[float], float]
) -> Callable[[float], float]:
    def effect(value: float) -> float:
        try:
            return mapped(curve, computed(curve.driver, {**inputs, name: inner(value)}))
        except UnknownError:
            return 0.0

    return effect


def computed(driver: Any, inputs: Mapping[str, float]) -> float:
    """What a driver makes of its variables.

    Raises:
        UnknownError: Its expression is more than arithmetic.
    """
    values = list(inputs.values()) or [0.0]
    simple = {"AVERAGE": lambda: sum(values) / len(values), "SUM": lambda: sum(values)}
    simple |= {"MIN": lambda: min(values), "MAX": lambda: max(values)}
    if driver.type in simple:
        return float(simple[driver.type]())
    return evaluated(driver.expression, inputs)


def evaluated(expression: str, inputs: Mapping[str, float]) -> float:
    """The value of an arithmetic expression.

    Raises:
        UnknownError: It is more than arithmetic, or has no value.
    """
    try:
        found = float(_of(_tree(expression), inputs))
    except (ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise UnknownError from error
    if not math.isfinite(found):
        raise UnknownError
    return found


@lru_cache(maxsize=1024)
def _tree(expression: str) -> ast.expr:
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError) as error:
        raise UnknownError from error


def _of(node: ast.expr, inputs: Mapping[str, float]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name) if name in inputs or name in _CONSTANTS:
            return inputs[name] if name in inputs else _CONSTANTS[name]
        case ast.BinOp(op=ast.Pow()):
            base, power = _of(node.left, inputs), _of(node.right, inputs)
            return math.pow(base, power)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](_of(node.left, inputs), _of(node.right, inputs))
        case ast.UnaryOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](_of(node.operand, inputs))
        case ast.BoolOp():
            values = [_of(value, inputs) for value in node.values]
            return all(values) if isinstance(node.op, ast.And) else any(values)
        case ast.Compare(ops=[comparison]) if type(comparison) in _OPERATORS:
            return _OPERATORS[type(comparison)](_of(node.left, inputs), _of(node.comparators[0], inputs))
        case ast.IfExp():
            return _of(node.body if _of(node.test, inputs) else node.orelse, inputs)
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_of(argument, inputs) for argument in node.args))
    raise UnknownError


def mapped(curve: Any, value: float) -> float:
    """What a driver's curve makes of the driver's value; without keyframes and generators it stays."""
    points = [tuple(point.co) for point in curve.keyframe_points]
    if len(points) >= 2:
        (x0, y0), (x1, y1) = points[:2] if value < points[0][0] else points[-2:]
        inside = points[0][0] <= value <= points[-1][0]
        if inside or curve.extrapolation == "CONSTANT" or x0 == x1:
            return float(np.interp(value, [x for x, _ in points], [y for _, y in points]))
        return y0 + (y1 - y0) * (value - x0) / (x1 - x0)
    for modifier in curve.modifiers:
        if modifier.type == "GENERATOR" and not modifier.mute and modifier.mode == "POLYNOMIAL":
            return float(sum(factor * value**power for power, factor in enumerate(modifier.coefficients)))
    return value


def _value_now(variable: Any) -> float:
    """What a variable that is not asked about has: a bone's rest, a property's value now."""
    target = variable.targets[0]
    if variable.type == "TRANSFORMS":
        return float(target.transform_type.startswith("SCALE"))
    if variable.type != "SINGLE_PROP" or target.id is None:
        return 0.0
    control = controls.parsed(target.data_path)
    if control is not None and not control.is_property:
        return float(control.name == "scale")
    try:
        return float(target.id.path_resolve(target.data_path))
    except (ValueError, TypeError):
        return 0.0
