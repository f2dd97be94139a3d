"""Parameters that do not fit each other, on real folders: whole messages."""

from __future__ import annotations

import pytest

from tests.conftest import Repository
from tests.test_catalog import problems, write_merge

TERM = "terms: [{adapter: formal, version: 1}]"
TWO = "terms: [{adapter: formal, version: 1}, {adapter: brief, version: 1%s}]"
OTHERS = ", parameters: {density: 0.3}"


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            f"  method: della\n  parameters: {{density: 0.1}}\n  {TERM}\n",
            "6:15: recipe.parameters.epsilon: expected density - epsilon above 0 and density + "
            "epsilon at most 1, found density 0.1 and epsilon 0.1\n"
            "  hint: lower epsilon, or choose another density",
        ),
        (
            f"  method: della_linear\n  parameters: {{epsilon: 0.3}}\n  {TWO % OTHERS}\n",
            "7:93: recipe.terms[1].parameters.density: expected density - epsilon above 0 and "
            "density + epsilon at most 1, found density 0.3 and epsilon 0.3\n"
            "  hint: lower epsilon, or choose another density",
        ),
        (
            "  method: breadcrumbs\n"
            f"  parameters: {{density: {{layers: [0.5, 0.9]}}, gamma: 0.2}}\n  {TERM}\n",
            "6:54: recipe.parameters.gamma: expected density + gamma at most 1, found density 0.9 "
            "and gamma 0.2\n  hint: lower gamma, or choose another density",
        ),
        (
            f"  method: consensus\n  {TERM}\n",
            "5:3: recipe.parameters.min_terms: expected at most the number of terms, 1, found 2\n"
            "  hint: no element can matter to more terms than there are",
        ),
        (
            "  method: dare_ties\n"
            f"  parameters: {{scope: model, trim_density: {{layers: [0.1, 0.2]}}}}\n  {TERM}\n",
            "6:44: recipe.parameters.trim_density: expected a number with scope model, found a "
            "schedule\n  hint: use scope: tensor, or one trim_density",
        ),
        (
            f"  method: sce\n  {TWO % OTHERS}\n",
            "6:93: recipe.terms[1].parameters.density: density of sce is one for all terms\n"
            "  hint: set it in recipe.parameters",
        ),
        (
            f"  method: sce\n  {TERM}\n",
            "6:10: recipe.terms: expected at least 2 terms for sce, found 1\n"
            "  hint: one term alone: task_arithmetic takes it, at any weight",
        ),
        (
            "  method: dare_linear\n  terms: [{adapter: formal, version: 1, weight: -1}]\n",
            "6:49: recipe.terms[0].weight: expected no negative weight (normalize divides by the "
            "sum), found -1\n  hint: normalize: false",
        ),
    ],
)
def test_parameters_that_do_not_fit_each_other_are_refused(
    repository: Repository, recipe: str, expected: str
) -> None:
    write_merge(repository, "odd", recipe)

    assert problems(repository) == [f"catalog/merges/odd.yaml:{expected}"]


@pytest.mark.parametrize(
    "recipe",
    [
        f"  method: della\n  parameters: {{density: 0.9}}\n  {TERM}\n",
        f"  method: breadcrumbs\n  parameters: {{density: 0.7, gamma: 0.3}}\n  {TERM}\n",
        # The density that would not fit is nobody's.
        "  method: breadcrumbs_ties\n  parameters: {gamma: 0.6}\n"
        "  terms: [{adapter: formal, version: 1, parameters: {density: 0.3}}]\n",
        # Both change from layer to layer: only the merger sees which meet.
        "  method: della\n  parameters: {density: {layers: [0.2, 0.8]}, "
        f"epsilon: {{layers: [0.1, 0.2]}}}}\n  {TERM}\n",
        "  method: dare_ties\n"
        f"  parameters: {{scope: model, density: {{layers: [0.1, 0.2]}}}}\n  {TERM}\n",
        f"  method: consensus\n  {TWO % ''}\n",
    ],
)
def test_parameters_that_fit_are_accepted(repository: Repository, recipe: str) -> None:
    write_merge(repository, "fine", recipe)

    assert problems(repository) == []
