# SPDX-License-Identifier: GPL-3.0-or-later
"""Similarities are recovered and never mirror; the hash of the edges depends on the topology only."""

from __future__ import annotations

import numpy as np
import pytest

from wav2sem_blender.pipeline.any_head.geometry import edges_hash, face_edges, fit_similarity

POINTS_N3 = np.random.default_rng(0).normal(size=(40, 3))
TURN_33 = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])


def test_a_similarity_is_recovered() -> None:
    found = fit_similarity(POINTS_N3, 100 * POINTS_N3 @ TURN_33.T + [1.0, 2.0, 3.0])
    assert found.scale == pytest.approx(100) and found.residual < 1e-12
    np.testing.assert_allclose(found.rotation_33, TURN_33, atol=1e-12)
    np.testing.assert_allclose(found.apply(POINTS_N3), 100 * POINTS_N3 @ TURN_33.T + [1.0, 2.0, 3.0])
    np.testing.assert_allclose(found.apply_to_offsets(POINTS_N3), 100 * POINTS_N3 @ TURN_33.T)


def test_a_mirror_image_is_fitted_by_a_rotation_and_leaves_a_residual() -> None:
    found = fit_similarity(POINTS_N3, POINTS_N3 * [-1, 1, 1])
    assert np.linalg.det(found.rotation_33) == pytest.approx(1) and found.residual > 0.5


def test_the_residual_is_in_the_sources_unit() -> None:
    noise_N3 = np.random.default_rng(1).normal(scale=0.01, size=POINTS_N3.shape)
    near, far = (fit_similarity(POINTS_N3, scale * (POINTS_N3 + noise_N3)).residual for scale in (1, 100))
    assert near == pytest.approx(far) and near == pytest.approx(0.01 * np.sqrt(3), rel=0.2)


def test_edges_are_the_same_in_any_order_and_direction() -> None:
    faces_F3 = np.array([[0, 1, 2], [2, 1, 3]])
    np.testing.assert_array_equal(face_edges(faces_F3), [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]])
    shuffled_E2 = np.array([[3, 2], [1, 0], [2, 0], [3, 1], [1, 2], [2, 1]])
    assert edges_hash(shuffled_E2) == edges_hash(face_edges(faces_F3))
    assert edges_hash(shuffled_E2) != edges_hash(face_edges(np.array([[0, 1, 2], [0, 1, 3]])))
