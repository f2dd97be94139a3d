"""Coefficients of the spherical means and of Model Stock on vectors one can draw."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from merger.methods import model_stock, spherical
from tests.reference import geometry

HALF = math.sqrt(0.5)


def gram_of(*vectors: list[float]) -> np.ndarray:
    stacked = np.array(vectors, np.float64)
    return (stacked @ stacked.T)[..., None]


def models(base: list[float], *thetas: list[float]) -> np.ndarray:
    """Return the Gram matrix of τᵢ = θᵢ - base and the base."""
    return gram_of(*(np.array(theta) - np.array(base) for theta in thetas), base)


def at(degrees: float, length: float = 1.0) -> list[float]:
    angle = math.radians(degrees)
    return [length * math.cos(angle), length * math.sin(angle)]


def result(combination: spherical.Combination, *vectors: list[float]) -> np.ndarray:
    return combination.operands[:, 0] @ np.array(vectors)


def close(found: object, expected: object) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_slerp_halves_a_right_angle() -> None:
    found = spherical.slerp(gram_of([1.0, 0.0], [0.0, 1.0]), 0.5)

    close(found.operands[:, 0], [HALF, HALF])


def test_slerp_of_sixty_degrees_goes_through_forty() -> None:
    found = spherical.slerp(gram_of(at(0), at(60)), 2 / 3)

    close(result(found, at(0), at(60)), at(40))


def test_slerp_takes_the_angle_of_directions_and_interpolates_the_vectors() -> None:
    found = spherical.slerp(gram_of([2.0, 0.0], [0.0, 1.0]), 0.5)

    close(result(found, [2.0, 0.0], [0.0, 1.0]), [2 * HALF, HALF])


@pytest.mark.parametrize(("t", "expected"), [(0.0, [1.0, 0.0]), (1.0, [0.0, 1.0])])
def test_the_ends_are_the_operands_to_the_bit(t: float, expected: list[float]) -> None:
    for gram in (gram_of(at(7), at(61, 3)), models([3.0, 0.1], at(7), at(61, 3))):
        found = spherical.slerp(gram, t)

        assert found.operands[:, 0].tolist() == expected
        assert found.base.tolist() == [0.0]


def test_of_models_the_base_takes_what_the_coefficients_have_above_one() -> None:
    found = spherical.slerp(models([1.0, 0.0], [1.0, 0.0], [0.0, 1.0]), 0.5)

    close(found.operands[:, 0], [HALF, HALF])
    close(found.base, [2 * HALF - 1])


@pytest.mark.parametrize("degrees", [1.0, 179.0])
def test_slerp_is_linear_for_nearly_parallel_and_nearly_opposite_vectors(degrees: float) -> None:
    found = spherical.slerp(gram_of(at(0), at(degrees)), 0.25)

    assert found.operands[:, 0].tolist() == [0.75, 0.25]


def test_slerp_is_spherical_just_outside() -> None:
    found = spherical.slerp(gram_of(at(0), at(2)), 0.25)

    close(result(found, at(0), at(2)), at(0.5))


@pytest.mark.parametrize("method", ["slerp", "nuslerp"])
def test_a_zero_vector_makes_it_linear(method: str) -> None:
    gram = gram_of([0.0, 0.0], [0.0, 4.0])
    shares = {"slerp": 0.25, "nuslerp": (0.75, 0.25)}[method]

    assert getattr(spherical, method)(gram, shares).operands[:, 0].tolist() == [0.75, 0.25]


def test_nuslerp_is_spherical_where_slerp_is_linear() -> None:
    found = spherical.nuslerp(gram_of(at(0), at(1)), (0.75, 0.25))

    close(result(found, at(0), at(1)), at(0.25))


def test_nuslerp_of_opposite_vectors_is_linear() -> None:
    found = spherical.nuslerp(gram_of(at(20), at(200, 2.0)), (0.75, 0.25))

    assert found.operands[:, 0].tolist() == [0.75, 0.25]


def test_nuslerp_takes_every_group_for_itself() -> None:
    rows = np.concatenate([gram_of(at(0), at(90)), gram_of(at(0), at(0))], axis=2)

    found = spherical.nuslerp(rows, (0.5, 0.5))

    close(found.operands, [[HALF, 0.5], [HALF, 0.5]])


def test_the_mean_on_a_circle_is_the_mean_of_the_angles() -> None:
    vectors = [at(0), at(30), at(90)]

    one_step = spherical.multislerp(gram_of(*vectors), (1 / 3, 1 / 3, 1 / 3))
    weighted = spherical.karcher(
        gram_of(*vectors), (0.5, 0.25, 0.25), max_iterations=10, tolerance=1e-9
    )

    close(result(one_step, *vectors), at(40))
    close(result(weighted, *vectors), at(30))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_of_two_operands_of_one_norm_all_means_are_slerp(share: float) -> None:
    gram = models([0.5, 0.25], at(10, 2.0), at(130, 2.0))
    shares = (1 - share, share)

    expected = spherical.slerp(gram, share)
    for found in (
        spherical.nuslerp(gram, shares),
        spherical.multislerp(gram, shares),
        spherical.karcher(gram, shares, max_iterations=10, tolerance=1e-9),
    ):
        close(found.operands, expected.operands)
        close(found.base, expected.base)


@pytest.mark.parametrize("steps", [1, 20])
def test_the_mean_has_the_weighted_mean_of_the_norms(steps: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((4, 6)) * [[1.0], [2.0], [3.0], [4.0]]
    shares = (0.1, 0.2, 0.3, 0.4)

    found = spherical.karcher(gram_of(*vectors), shares, max_iterations=steps, tolerance=1e-9)

    norms = np.linalg.norm(vectors, axis=1)
    close(np.linalg.norm(result(found, *vectors)), shares @ norms)


def test_karcher_is_where_the_weighted_logarithms_cancel() -> None:
    vectors = np.random.default_rng(2).standard_normal((5, 8)) + 1.0
    shares = np.array([0.1, 0.2, 0.3, 0.25, 0.15])

    found = spherical.karcher(gram_of(*vectors), tuple(shares), max_iterations=1000, tolerance=1e-8)

    point = result(found, *vectors)
    point = point / np.linalg.norm(point)
    pull = np.zeros(8)
    for share, vector in zip(shares, vectors, strict=True):
        across = vector - (vector @ point) * point
        pull += share * geometry.angle(vector, point) * across / np.linalg.norm(across)
    np.testing.assert_allclose(pull, 0.0, atol=1e-7)
    # It stopped at a step of 1e-8.
    expected = geometry.spherical_mean(list(vectors), shares, 200)
    np.testing.assert_allclose(result(found, *vectors), expected, rtol=0, atol=3e-8)


def test_karcher_stops_at_its_last_iteration_and_at_its_tolerance() -> None:
    vectors = np.random.default_rng(3).standard_normal((3, 5))
    shares = (0.2, 0.3, 0.5)

    one = spherical.karcher(gram_of(*vectors), shares, max_iterations=1, tolerance=1e-9)
    early = spherical.karcher(gram_of(*vectors), shares, max_iterations=99, tolerance=1.0)

    assert (
        one.operands.tolist() == spherical.multislerp(gram_of(*vectors), shares).operands.tolist()
    )
    close(result(early, *vectors), geometry.spherical_mean(list(vectors), shares, 0))


MEANS = {
    "multislerp": spherical.multislerp,
    "karcher": lambda gram, shares: spherical.karcher(
        gram, shares, max_iterations=10, tolerance=1e-5
    ),
}


@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
def test_the_mean_of_equal_operands_is_the_operand(mean: object) -> None:
    vector = [0.1, -0.7, 0.3]

    found = mean(models([1.0, 2.0, 3.0], vector, vector, vector), (0.2, 0.3, 0.5))

    close(found.operands[:, 0], [0.2, 0.3, 0.5])
    assert found.base.tolist() == [0.0]


@pytest.mark.parametrize("count", [2, 3, 7, 1000])
def test_models_equal_to_the_base_leave_it_alone_to_the_bit(count: int) -> None:
    base = np.random.default_rng(count).standard_normal(50)
    gram = models(base, *[base] * count)
    shares = [1 / count] * count

    found = [mean(gram, shares) for mean in MEANS.values()]
    found += [spherical.slerp(gram, 0.3), spherical.nuslerp(gram, (0.7, 0.3))] if count == 2 else []

    assert [one.base.tolist() for one in found] == [[0.0]] * len(found)


@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
def test_a_zero_operand_counts_in_the_norm_and_has_no_direction(mean: object) -> None:
    vectors = [at(0, 2.0), [0.0, 0.0], at(90, 2.0)]

    found = mean(gram_of(*vectors), (0.25, 0.5, 0.25))

    close(result(found, *vectors), at(45))


@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
def test_without_a_mean_direction_the_mean_is_linear(mean: object) -> None:
    opposite = mean(gram_of(at(30, 3.0), at(210)), (0.5, 0.5))
    nothing = mean(gram_of([0.0, 0.0], [0.0, 0.0]), (0.25, 0.75))

    assert opposite.operands[:, 0].tolist() == [0.5, 0.5]
    assert nothing.operands[:, 0].tolist() == [0.25, 0.75]


@pytest.mark.parametrize("mean", MEANS.values(), ids=MEANS)
def test_an_operand_opposite_to_the_mean_pulls_nowhere(mean: object) -> None:
    found = mean(gram_of(at(30), at(210)), (0.75, 0.25))

    close(result(found, at(30), at(210)), at(30))


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-6])
def test_models_close_to_one_base_are_merged_as_exactly_as_others(size: float) -> None:
    numbers = np.random.default_rng(4)
    base = numbers.standard_normal(200)
    taus = numbers.standard_normal((2, 200)) * size
    gram = gram_of(*taus, base)

    found = spherical.nuslerp(gram, (0.3, 0.7))

    delta = found.operands[:, 0] @ taus + found.base[0] * base
    expected = _exact_delta(base, taus, 0.7)
    error = np.linalg.norm(delta - expected) / np.linalg.norm(expected)
    # Below an angle of 1e-4 it is linear, which errs by an eighth of the angle.
    assert error < (1e-14 if size > 1e-4 else size)


def _exact_delta(base: np.ndarray, taus: np.ndarray, t: float) -> np.ndarray:
    with mpmath.workdps(60):
        first, second = (
            [mpmath.mpf(b) + mpmath.mpf(x) for b, x in zip(base, tau, strict=True)] for tau in taus
        )
        norms = [mpmath.sqrt(sum(x * x for x in model)) for model in (first, second)]
        dot = sum(a * b for a, b in zip(first, second, strict=True))
        omega = mpmath.acos(dot / norms[0] / norms[1])
        one = mpmath.sin((1 - mpmath.mpf(t)) * omega) / mpmath.sin(omega)
        two = mpmath.sin(mpmath.mpf(t) * omega) / mpmath.sin(omega)
        whole = zip(first, second, base, strict=True)
        return np.array([float(one * a + two * b - mpmath.mpf(c)) for a, b, c in whole])


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([at(0), at(60)], 1 / 3),
        ([at(0), at(0, 5.0)], 1 / 2),
        ([at(0), at(90)], 0.0),
        ([at(0), at(180)], 0.0),
        ([at(0), [0.0, 0.0]], 0.0),
        ([at(0), at(120)], -1.0),
        # Three pairs: 1, 0 and 0, their mean 1/3.
        ([at(0), at(0), at(90)], 1 / 5),
    ],
)
def test_model_stock_draws_the_mean_towards_the_base(
    vectors: list[list[float]], expected: float
) -> None:
    close(model_stock.factor(gram_of(*vectors)), [expected])


def test_model_stock_takes_every_row_for_itself() -> None:
    rows = np.concatenate([gram_of(at(0), at(60)), gram_of(at(0), at(90))], axis=2)

    close(model_stock.factor(rows), [1 / 3, 0.0])
