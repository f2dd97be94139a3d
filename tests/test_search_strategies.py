"""Ways through a space: what is proposed, and that the same answers give the same questions."""

from __future__ import annotations

import pytest

from merger.search import strategies
from merger.search.space import Point, Space, Variable
from merger.search.strategies import Proposals


def variable(label: str, values: tuple[float, ...] = (), *, layers: int = 0) -> Variable:
    return Variable(label, label, None, values, 0.0, 2.0, layers)


def answered(proposals: Proposals, score: dict[Point, float]) -> list[list[Point]]:
    """Return all batches when every point has the score in the table."""
    batches = [next(proposals)]
    while True:
        try:
            batches.append(proposals.send([score[point] for point in batches[-1]]))
        except StopIteration:
            return batches


def test_a_grid_is_every_combination_the_last_changing_fastest() -> None:
    space = Space((variable("a", (1.0, 2.0)), variable("b", (0.1, 0.2, 0.3))))

    (points,) = answered(
        strategies.grid(space),
        dict.fromkeys([(a, b) for a in (1.0, 2.0) for b in (0.1, 0.2, 0.3)], 0.0),
    )

    assert points == [(1.0, 0.1), (1.0, 0.2), (1.0, 0.3), (2.0, 0.1), (2.0, 0.2), (2.0, 0.3)]


def test_a_greedy_soup_takes_the_best_first_and_keeps_what_is_strictly_better() -> None:
    space = Space(tuple(variable(name) for name in "abc"))
    score = {
        (1.0, 0.0, 0.0): 0.5,
        (0.0, 1.0, 0.0): 0.7,
        (0.0, 0.0, 1.0): 0.6,
        (1.0, 1.0, 1.0): 0.9,
        (0.0, 1.0, 1.0): 0.7,  # no better: c is left out
        (1.0, 1.0, 0.0): 0.8,  # better: a is taken
    }

    batches = answered(strategies.greedy_soup(space), score)

    assert batches[0] == [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)]
    assert batches[1:] == [[(0.0, 1.0, 1.0)], [(1.0, 1.0, 0.0)]]


def distance(point: Point) -> float:
    """Return how near a point is to its target: 0 there, less elsewhere."""
    schedule, number = point
    assert isinstance(schedule, dict)
    wanted = [0.5, 1.5, 1.0, 0.25]
    found = [*schedule["layers"], schedule["embeddings"], schedule["head"]]
    return -sum((a - b) ** 2 for a, b in zip(found, wanted, strict=True)) - (number - 0.75) ** 2


def evolved(generations: int, seed: int = 3) -> list[list[Point]]:
    space = Space((variable("w", layers=2), variable("x")))
    start: Point = ({"layers": [1.0, 1.0], "embeddings": 1.0, "head": 1.0}, 1.0)
    proposals = strategies.cma_es(space, start, seed=seed, population=None, sigma=0.2)
    batches = [next(proposals)]
    for _ in range(generations):
        batches.append(proposals.send([distance(point) for point in batches[-1]]))
    return batches


def test_evolution_finds_the_optimum_within_its_bounds() -> None:
    declared, *batches = evolved(160)

    assert declared == [({"layers": [1.0, 1.0], "embeddings": 1.0, "head": 1.0}, 1.0)]
    best = max((point for batch in batches for point in batch), key=distance)
    assert distance(best) > -1e-4
    assert [len(batch) for batch in batches] == [4 + 4, 1] * 80  # 4 + floor(3 ln 5), their mean
    for batch in batches:
        for schedule, number in batch:
            assert isinstance(schedule, dict)
            numbers = [*schedule["layers"], schedule["embeddings"], schedule["head"], number]
            assert all(0.0 <= one <= 2.0 for one in numbers)
            assert all(one == round(one, 4) for one in numbers)


def test_the_same_scores_and_seed_give_the_same_points() -> None:
    assert evolved(10) == evolved(10)
    assert evolved(1) != evolved(1, seed=4)


def test_a_schedule_has_no_number_for_what_its_term_does_not_change() -> None:
    layer, head = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"
    of_term = [
        Variable("first", None, 0, (), 0.0, 2.0, layers=2),
        Variable("second", None, 1, (), 0.0, 2.0, layers=1),
    ]
    space = Space((*of_term, variable("both", layers=1), variable("x"))).over([[layer], [head]])

    assert len(space.coordinates((1.0, 1.0, 1.0, 1.0))) == 2 + 2 + 2 + 1
    assert space.at([0.75, 0.25, 0.5, 0.0, 1.0, 0.5, 0.125]) == (
        {"layers": [1.5, 0.5]},
        {"layers": [1.0], "head": 0.0},
        {"layers": [2.0], "head": 1.0},
        0.25,
    )


def test_embeddings_have_a_number_where_they_are_merged() -> None:
    space = Space((Variable("w", None, 0, (), 0.0, 2.0, layers=1),))

    assert space.over([["model.embed_tokens.weight"]]).at([0.5, 0.25]) == (
        {"layers": [1.0], "embeddings": 0.5},
    )


@pytest.mark.parametrize(
    ("value", "layers", "embeddings", "head"),
    [
        (0.3, [0.3, 0.3], 0.3, 0.3),
        # Ends that a schedule does not name take the mean of its layers.
        ({"layers": [0.2, 0.4], "head": 0.7}, [0.2, 0.4], 0.3, 0.7),
    ],
)
def test_a_value_survives_its_coordinates(
    value: float | dict[str, object], layers: list[float], embeddings: float, head: float
) -> None:
    one = variable("w", layers=2)

    found = one.value(one.coordinates(value))

    assert isinstance(found, dict)
    assert [*found["layers"], found["embeddings"], found["head"]] == [*layers, embeddings, head]


def test_neighbours_of_a_grid_are_one_step_of_one_variable_apart() -> None:
    space = Space((variable("a", values=(0.3, 0.1, 0.2)), variable("b", values=(1.0, 2.0))))

    assert space.are_neighbours((0.1, 1.0), (0.2, 1.0))
    assert space.are_neighbours((0.1, 1.0), (0.1, 2.0))
    assert not space.are_neighbours((0.1, 1.0), (0.3, 1.0))
    assert not space.are_neighbours((0.1, 1.0), (0.2, 2.0))
    assert not space.are_neighbours((0.1, 1.0), (0.1, 1.0))
    assert not space.are_neighbours((0.15, 1.0), (0.2, 1.0))
