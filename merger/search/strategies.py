"""Ways through a space: which points are tried next, by how good the last ones were.

A strategy is a generator: it yields points, is sent as many scores, of which more is better, and
ends when it has nothing to propose. The same scores give the same points, so a search that was
killed is taken up again by asking anew and answering from memory. Knows no model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Sequence

import numpy as np

from merger.search.space import Point, Space

Scores = list[float]
Proposals = Generator[list[Point], Scores, None]


def grid(space: Space) -> Proposals:
    """Propose every combination of values, the last variable's changing fastest."""
    yield [tuple(one) for one in itertools.product(*(each.values for each in space.variables))]


def cma_es(
    space: Space, start: Point, *, seed: int, population: int | None, sigma: float
) -> Proposals:
    """Propose `start` itself, then points by CMA-ES around it, one population at a time.

    So what is found is never worse than what was declared. Each population is followed by its new
    mean: a score of few prompts is partly luck, and the mean is what the best of them have in
    common. Covariance matrix adaptation (Hansen and Ostermeier 2001) as the package `cmaes` has it,
    with the bounds of the space; `sigma` is the first step as a share of each range. A population
    is 4 + ⌊3 ln d⌋ by default, d the number of coordinates. When it has converged it starts again
    from `start` with a population of twice the size (Auger and Hansen 2005, IPOP).
    """
    from cmaes import CMA

    mean = np.array(space.coordinates(start))
    size = population or 4 + math.floor(3 * math.log(len(mean)))
    bounds = np.array([[0.0, 1.0]] * len(mean))
    yield [start]
    for restart in itertools.count():
        optimizer = CMA(
            mean=mean,
            sigma=sigma,
            bounds=bounds,
            seed=(seed + restart) % 2**32,
            population_size=size,
        )
        while not optimizer.should_stop():
            asked = [optimizer.ask() for _ in range(size)]
            scores = yield [space.at([float(x) for x in one]) for one in asked]
            # The package looks for the least.
            optimizer.tell([(one, -score) for one, score in zip(asked, scores, strict=True)])
            yield [space.at([float(x) for x in optimizer.mean])]
        size *= 2


def greedy_soup(space: Space) -> Proposals:
    """Propose each ingredient alone, then add them one by one where that is strictly better.

    Wortsman et al. 2022, "Model soups", recipe 1: best first, by the score alone. Variables are the
    weights of all terms, here 1 or 0; the uniform soup of all is proposed as well, to compare.
    """
    count = len(space.variables)
    singles = [_chosen([one], count) for one in range(count)]
    *alone, _ = yield [*singles, _chosen(range(count), count)]
    order = sorted(range(count), key=lambda one: (-alone[one], one))
    soup, best = order[:1], alone[order[0]]
    for one in order[1:]:
        (score,) = yield [_chosen([*soup, one], count)]
        if score > best:
            soup, best = [*soup, one], score


def _chosen(terms: Sequence[int], count: int) -> Point:
    return tuple(1.0 if one in terms else 0.0 for one in range(count))
