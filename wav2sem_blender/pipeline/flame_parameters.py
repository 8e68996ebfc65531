# SPDX-License-Identifier: GPL-3.0-or-later
"""FLAME's parameters through the user's own FLAME file: shape keys that make the face of expressions and a jaw's turn.

FLAME adds the columns of its expressions, then turns what hangs on the jaw by its rotation R about a joint, and adds
corrections that are linear in R - 1. R - 1 is a sum of 9 fixed matrices whose factors follow from the rotation vector
(Rodrigues): 3 as the vector itself, 6 as its products. So 9 keys turn the neutral face exactly. What keys cannot do is
turn the expression with the jaw; `KeyBasis.error_m` says how much that is.

Shapes: T animation frames, V vertices, E expressions (50 of 3DMEAD), S shape parameters, X = E + 3 parameters,
K = E + 9 keys.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import MissingFileError, UserError
from .array_file import read_array, read_arrays

N_SHAPES, N_EXPRESSIONS = 300, 50
N_PARAMETERS = N_EXPRESSIONS + 3
EXPRESSION_UNIT = 3.0
"""Standard deviations of an expression that are a key's full shape: published models predict -3 to 3."""
OWN_FACE = "neutral_face"
"""The speaking style that is made of the shape of the face that is animated."""
RANGES = ((-3.0, 3.0), (-0.1, 0.5))
"""The expressions and the jaw's rotation vector in radians that models trained on 3DMEAD call 0 and 1."""
_PAIRS = tuple(itertools.combinations_with_replacement(range(3), 2))
_AXES = "xyz"


def key_names(n_expressions: int) -> tuple[str, ...]:
    """Names of the keys for so many expressions and the jaw."""
    return (
        *(f"flame_expression_{i + 1:02d}" for i in range(n_expressions)),
        *(f"flame_jaw_{axis}" for axis in _AXES),
        *(f"flame_jaw_{_AXES[i]}{_AXES[j]}" for i, j in _PAIRS),
    )


KEYS = key_names(N_EXPRESSIONS)
_SHAPES = {"v_template": (3,), "shapedirs": (3, -1), "posedirs": (3, 36), "lbs_weights": (5,)}
_OTHER_NAMES = {"weights": "lbs_weights"}
_JAW = 2
_JAW_POSES = slice(9, 18)  # posedirs has 9 columns for each joint after the root


class KeyBasis(NamedTuple):
    """What the keys move (K, V, 3), and what they cannot: the greatest root mean square of a vertex for expressions of
    unit variance and a jaw that opens by up to 0.3 rad. In metres."""

    basis_KV3: np.ndarray
    error_m: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Flame:
    """The parts of a FLAME file that speech needs; metres, y up, z forward.

    Attributes:
        shapes_V3S: Displacements by one standard deviation of a shape parameter.
        expressions_V3E: Of an expression parameter.
        jaw_poses_V39: Corrections for the entries of the jaw's R - 1.
        jaw_weight_V: How far a vertex hangs on the jaw.
        joint_V: The jaw's joint is this mean of the vertices.
    """

    template_V3: np.ndarray
    shapes_V3S: np.ndarray
    expressions_V3E: np.ndarray
    jaw_poses_V39: np.ndarray
    jaw_weight_V: np.ndarray
    joint_V: np.ndarray

    @classmethod
    def read(cls, path: Path, n_expressions: int = N_EXPRESSIONS) -> Flame:
        """Read an .npz with FLAME's own arrays: v_template, shapedirs, posedirs, J_regressor, weights.

        Raises:
            MissingFileError: There is no such file.
            UserError: It is no .npz, or an array is missing or has another shape.
        """
        if not path.is_file():
            raise MissingFileError("{file}: no such file", file=path)
        try:
            stored = read_arrays(path, {"v_template", "shapedirs", "posedirs", "J_regressor", "weights", "lbs_weights"})
            arrays = {_OTHER_NAMES.get(name, name): value.astype(np.float64) for name, value in stored.items()}
        except (OSError, ValueError) as error:
            raise UserError(
                "{file}: not an .npz of FLAME's arrays ({error}). Convert FLAME's .pkl as docs/hosts.md says",
                file=path,
                error=error,
            ) from error
        return cls._of(path, arrays, n_expressions)

    @classmethod
    def _of(cls, path: Path, arrays: dict[str, np.ndarray], n_expressions: int) -> Flame:
        for name in (*_SHAPES, "J_regressor"):
            if name not in arrays:
                raise UserError("{file}: FLAME's array {name} is missing", file=path, name=name)
        n_vertices = arrays["v_template"].shape[0] if arrays["v_template"].ndim else 0
        wanted = {name: (n_vertices, *shape) for name, shape in _SHAPES.items()} | {"J_regressor": (5, n_vertices)}
        for name, shape in wanted.items():
            found = arrays[name].shape
            if len(found) != len(shape) or any(n not in (-1, m) for n, m in zip(shape, found, strict=True)):
                raise UserError(
                    "{file}: {name} has shape {found}; FLAME's has {expected}",
                    file=path,
                    name=name,
                    found=found,
                    expected=tuple("any" if n < 0 else n for n in shape),
                )
        columns = arrays["shapedirs"].shape[2]
        if columns < N_SHAPES + n_expressions:
            raise UserError(
                "{file}: it has {found} shape and expression columns; {needed} are needed, as in FLAME 2020's "
                "generic_model. A reduced FLAME will not do",
                file=path,
                found=columns,
                needed=N_SHAPES + n_expressions,
            )
        return cls(
            template_V3=arrays["v_template"],
            shapes_V3S=arrays["shapedirs"][:, :, :N_SHAPES],
            expressions_V3E=arrays["shapedirs"][:, :, N_SHAPES:][:, :, :n_expressions],
            jaw_poses_V39=arrays["posedirs"][:, :, _JAW_POSES],
            jaw_weight_V=arrays["lbs_weights"][:, _JAW],
            joint_V=arrays["J_regressor"][_JAW],
        )

    def neutral(self, shape_S: np.ndarray) -> np.ndarray:
        """The neutral face (V, 3) of shape parameters."""
        return self.template_V3 + self.shapes_V3S @ shape_S

    def vertices(self, parameters_TX: np.ndarray, shape_S: np.ndarray) -> np.ndarray:
        """Faces (T, V, 3), as FLAME itself makes them; head and neck are still."""
        parameters_TX = np.asarray(parameters_TX, np.float64)
        moved_TV3 = self.neutral(shape_S) + np.tensordot(parameters_TX[:, :-3], self.expressions_V3E, axes=(1, 2))
        turn_T33 = np.tensordot(jaw_factors(parameters_TX[:, -3:]), _MATRICES, axes=(1, 0))
        joint_T3 = np.einsum("v,tvi->ti", self.joint_V, moved_TV3)
        posed_TV3 = moved_TV3 + np.tensordot(turn_T33.reshape(-1, 9), self.jaw_poses_V39, axes=(1, 2))
        arm_TV3 = self.jaw_weight_V[:, None] * (posed_TV3 - joint_T3[:, None])
        return posed_TV3 + arm_TV3 @ turn_T33.swapaxes(1, 2)

    def keys(self, shape_S: np.ndarray | None = None) -> KeyBasis:
        """What `key_names` move on the neutral face of a shape, or on FLAME's mean face."""
        neutral_V3 = self.neutral(np.zeros(N_SHAPES) if shape_S is None else shape_S)
        arm_V3 = self.jaw_weight_V[:, None] * (neutral_V3 - self.joint_V @ neutral_V3)
        corrected = [self.jaw_poses_V39 @ matrix.ravel() for matrix in _MATRICES]
        # The corrections hang on the jaw too, which a key cannot show: they are products of two turns.
        jaw_9V3 = [arm_V3 @ matrix.T + fixed_V3 for matrix, fixed_V3 in zip(_MATRICES, corrected, strict=True)]
        expressions_EV3 = EXPRESSION_UNIT * self.expressions_V3E.transpose(2, 0, 1)
        basis_KV3 = np.concatenate([expressions_EV3, jaw_9V3]).astype(np.float32)
        return KeyBasis(basis_KV3, self._error(basis_KV3))

    def _error(self, basis_KV3: np.ndarray) -> float:
        generator = np.random.default_rng(0)
        expressions_TE = generator.standard_normal((64, self.expressions_V3E.shape[2]))
        jaw_T3 = generator.uniform(0, 0.3, (64, 1)) * [1, 0, 0]
        parameters_TX = np.concatenate([expressions_TE, jaw_T3], 1)
        by_keys_TV3 = np.tensordot(key_weights(parameters_TX), basis_KV3, axes=(1, 0))
        shape_S = np.zeros(N_SHAPES)
        off_TV3 = self.vertices(parameters_TX, shape_S) - self.template_V3 - by_keys_TV3
        return float(np.sqrt(np.square(off_TV3).sum(2).mean(0).max()))

    def shape_of(self, vertices_V3: np.ndarray) -> np.ndarray:
        """The shape parameters (S,) of a neutral face in metres, in FLAME's frame, by least squares.

        Every parameter is expected to be about 1 and every coordinate to be exact to 0.1 mm, so that hundreds of
        parameters cannot make up for noise.

        Raises:
            UserError: The face has another number of vertices.
        """
        columns_XS = self.shapes_V3S.reshape(-1, N_SHAPES)
        if vertices_V3.shape != self.template_V3.shape:
            raise UserError(
                "the neutral face has {n_found} vertices, FLAME has {n_expected}",
                n_found=len(vertices_V3),
                n_expected=len(self.template_V3),
            )
        wanted_X = (vertices_V3 - self.template_V3).ravel()
        normal_SS = columns_XS.T @ columns_XS + 1e-8 * np.eye(N_SHAPES)
        return np.linalg.solve(normal_SS, columns_XS.T @ wanted_X)


def neutral_face(path: Path) -> np.ndarray:
    """The vertices (V, 3) of a neutral face in FLAME's order, metres and frame: an .npy, or an .obj.

    Raises:
        MissingFileError: There is no such file.
        UserError: It has no vertices, or not FLAME's number of them.
    """
    if not path.is_file():
        raise MissingFileError("{file}: no such file", file=path)
    try:
        if path.suffix.lower() == ".npy":
            vertices_V3 = read_array(path).astype(np.float64)
        else:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            vertices_V3 = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], np.float64)
    except (OSError, ValueError, EOFError) as error:
        raise UserError("{file}: not the vertices of a face ({error})", file=path, error=error) from error
    if vertices_V3.ndim != 2 or vertices_V3.shape[1] != 3 or not np.isfinite(vertices_V3).all():
        raise UserError("{file}: {shape}; finite vertices (V, 3) are needed", file=path, shape=vertices_V3.shape)
    return vertices_V3


def jaw_factors(rotation_T3: np.ndarray) -> np.ndarray:
    """Factors (T, 9) of `_MATRICES` whose sum is R - 1, for rotation vectors in radians."""
    angle_T1 = np.linalg.norm(rotation_T3, axis=1, keepdims=True)
    first_T3 = np.sinc(angle_T1 / np.pi) * rotation_T3
    second_T1 = np.sinc(angle_T1 / (2 * np.pi)) ** 2 / 2  # (1 - cos a) / a^2
    products_T6 = np.stack([rotation_T3[:, i] * rotation_T3[:, j] for i, j in _PAIRS], 1)
    return np.concatenate([first_T3, second_T1 * products_T6], 1)


def _matrices() -> np.ndarray:
    """(9, 3, 3): the generators of turns about x, y and z, and the parts of r r^T - |r|^2 for each product of r."""
    generators = [np.cross(np.eye(3), axis).T for axis in -np.eye(3)]
    products = []
    for i, j in _PAIRS:
        matrix_33 = -np.eye(3) if i == j else np.zeros((3, 3))
        matrix_33[i, j] += 1
        matrix_33[j, i] += i != j
        products.append(matrix_33)
    return np.stack([*generators, *products])


_MATRICES = _matrices()


def key_weights(parameters_TX: np.ndarray) -> np.ndarray:
    """Weights (T, K) of `key_names` for FLAME's parameters (T, X)."""
    expressions_TE, jaw_T3 = np.split(np.asarray(parameters_TX), [-3], axis=1)
    return np.concatenate([expressions_TE / EXPRESSION_UNIT, jaw_factors(jaw_T3)], 1).astype(np.float32)


def to_flame(outputs_TX: np.ndarray) -> np.ndarray:
    """FLAME's parameters (T, X) of what a model trained on 3DMEAD predicts."""
    low_X, high_X = _limits()
    return (outputs_TX * (high_X - low_X) + low_X).astype(np.float32)


def from_flame(parameters_TX: np.ndarray) -> np.ndarray:
    """The reverse of `to_flame`; values beyond the ranges are kept."""
    low_X, high_X = _limits()
    return ((parameters_TX - low_X) / (high_X - low_X)).astype(np.float32)


def _limits() -> tuple[np.ndarray, np.ndarray]:
    low_X, high_X = (np.repeat(ends, (N_EXPRESSIONS, 3)) for ends in zip(*RANGES, strict=True))
    return low_X, high_X
