"""What must hold of DARE, DELLA, Breadcrumbs, SCE and consensus, whatever the numbers."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merger import blocks
from merger.errors import InputError
from merger.methods import breadcrumbs, consensus, dare, della, sce
from merger.random_mask import random_mask
from tests import merging, tiny
from tests.merging import TermOf

DIGEST = "sha256:" + "5" * 64


class World:
    def __init__(self, folder: Path) -> None:
        self.base = tiny.tiny_base(folder / "base", dtype="float32")
        self.one = tiny.tiny_adapter(folder / "one", base=self.base, seed=1)
        self.two = tiny.tiny_adapter(folder / "two", base=self.base, seed=2, targets=("v_proj",))
        self.three = tiny.tiny_checkpoint(folder / "three", base=self.base, seed=3, dtype="float32")

    def terms(self, *weights: Any) -> list[TermOf]:
        kinds = (self.one, "adapter"), (self.two, "adapter"), (self.three, "checkpoint")
        pairs = zip(kinds, weights, strict=False)
        return [TermOf(folder, weight, kind) for (folder, kind), weight in pairs]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("sparse"))


def tensors(
    output: Path, base: Path, terms: Sequence[TermOf], **options: Any
) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    merging.build(output, base, terms, **options)
    return merging.raw_tensors(output)


# --- chance ----------------------------------------------------------------------------------

DRAWN = {
    "dare_linear": {"normalize": False, "density": 0.5},
    "dare_ties": {"density": 0.5, "combine": "sum"},
    "della_linear": {},
    "della": {"combine": "sum"},
}


@pytest.mark.parametrize("method", DRAWN)
def test_what_is_dropped_depends_on_seed_operand_and_tensor_alone(
    world: World, tmp_path: Path, method: str
) -> None:
    options = {"method": method, **DRAWN[method]}
    alone = tensors(tmp_path / "alone", world.base, world.terms(1.0), **options)
    renamed = [TermOf(world.one, 1.0, name="another-name")]
    copied = shutil.copytree(world.one, tmp_path / "elsewhere")
    # The other terms weigh nothing: they are there, and add nothing.
    among = world.terms(1.0, 0.0, 0.0)

    same = [
        tensors(tmp_path / "renamed", world.base, renamed, **options),
        tensors(tmp_path / "copied", world.base, [TermOf(copied, 1.0)], **options),
        tensors(tmp_path / "among", world.base, among, **options),
        tensors(tmp_path / "turned", world.base, among[::-1], **options),
        tensors(tmp_path / "shards", world.base, among, max_shard_size=3000, **options),
        tensors(tmp_path / "thread", world.base, among, threads=1, **options),
    ]
    other = tensors(tmp_path / "other", world.base, world.terms(1.0), **options, seed=1)

    assert same == [alone] * len(same)
    assert other != alone


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_another_weight_drops_the_same_elements(world: World, tmp_path: Path, method: str) -> None:
    options = {"method": method, **DRAWN[method]}
    before = tiny.read_tensors(world.base)
    for name, weight in (("one", 1.0), ("two", -0.5)):
        merging.build(tmp_path / name, world.base, world.terms(weight), **options)
    one, two = (tiny.read_tensors(tmp_path / name) for name in ("one", "two"))

    touched = [name for name, array in before.items() if not np.array_equal(one[name], array)]

    assert len(touched) == 4
    for name in touched:
        np.testing.assert_array_equal(one[name] != before[name], two[name] != before[name])


def test_a_further_tensor_in_the_base_leaves_the_masks_of_the_others(
    world: World, tmp_path: Path
) -> None:
    larger = shutil.copytree(world.base, tmp_path / "larger")
    arrays = {**tiny.read_tensors(world.base), "a.first": np.zeros((3, 5), np.float32)}
    tiny.write_safetensors(larger / "model.safetensors", arrays)

    one = tensors(tmp_path / "a", world.base, world.terms(1.0), method="dare_linear")
    two = tensors(tmp_path / "b", larger, world.terms(1.0), method="dare_linear")

    assert two.pop("a.first")
    assert one == two


def test_dare_linear_and_dare_ties_share_their_masks(world: World, tmp_path: Path) -> None:
    one = tensors(tmp_path / "a", world.base, world.terms(1.0), method="dare_linear", seed=4)
    two = tensors(tmp_path / "b", world.base, world.terms(1.0), method="dare_ties", seed=4)

    assert one == two


def test_della_without_a_range_is_dare(world: World, tmp_path: Path) -> None:
    terms = world.terms(1.0, -0.5, 0.25)
    flat = {"density": 0.3, "epsilon": 0.0}

    linear = tensors(tmp_path / "a", world.base, terms, method="della_linear", **flat)
    ties = tensors(tmp_path / "b", world.base, terms, method="della", **flat)

    options = {"method": "dare_linear", "density": 0.3, "normalize": False}
    assert linear == tensors(tmp_path / "c", world.base, terms, **options)
    assert ties == tensors(tmp_path / "d", world.base, terms, method="dare_ties", density=0.3)


@pytest.mark.parametrize("density", [0.05, 0.5])
def test_the_mean_after_drop_and_rescale_is_that_before(density: float) -> None:
    count = 1 << 21
    tau = torch.randn(count, generator=torch.Generator().manual_seed(2)) + 1.0
    kept = torch.from_numpy(random_mask(1, DIGEST, "w").kept(density, 0, count))

    dropped = dare.drop(tau, kept, density, rescale=True).double()

    deviation = math.sqrt(float((tau.double() ** 2).sum()) * (1 - density) / density)
    assert abs(float(dropped.sum() - tau.double().sum())) < 5 * deviation


def test_the_mean_after_a_drop_by_rank_is_that_before() -> None:
    rows, columns, density, epsilon = 512, 2048, 0.3, 0.25
    count = rows * columns
    tau = torch.randn(rows, columns, generator=torch.Generator().manual_seed(3)) + 1.0
    chances = della.keep_probabilities(tau, density, epsilon)
    kept = random_mask(1, DIGEST, "w").kept(chances, 0, count)

    flat, divisors = tau.reshape(-1), torch.from_numpy(chances)
    dropped = dare.drop(flat, torch.from_numpy(kept), divisors, rescale=True).double()

    squares = flat.double() ** 2
    deviation = math.sqrt(float((squares * (1 - divisors) / divisors).sum()))
    assert abs(float(dropped.sum() - flat.double().sum())) < 5 * deviation
    assert chances.mean() == pytest.approx(density, abs=1e-12)
    assert abs(kept.mean() - density) < 5 * math.sqrt(density * (1 - density) / count)


# --- nothing dropped -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "plain", "plain_options"),
    [
        ("dare_linear", {"density": 1.0, "normalize": False}, "task_arithmetic", {}),
        ("dare_ties", {"density": 1.0, "trim_density": 0.2}, "ties", {"density": 0.2}),
        (
            "dare_ties",
            {"density": 1.0, "trim_density": 0.2, "scope": "model"},
            "ties",
            {"density": 0.2, "scope": "model"},
        ),
        ("della_linear", {"density": 1.0, "epsilon": 0.0}, "task_arithmetic", {}),
        ("della", {"density": 1.0, "epsilon": 0.0}, "ties", {"density": 1.0}),
        ("breadcrumbs", {"density": 1.0, "gamma": 0.0}, "task_arithmetic", {}),
        ("breadcrumbs_ties", {"density": 0.4, "gamma": 0.0}, "ties", {"density": 0.4}),
        ("consensus", {"mask_lambda": 0.0, "min_terms": 3}, "task_arithmetic", {}),
    ],
    ids=str,
)
def test_where_nothing_is_dropped_the_plain_method_is_left_bit_for_bit(
    world: World,
    tmp_path: Path,
    method: str,
    options: dict[str, Any],
    plain: str,
    plain_options: dict[str, Any],
) -> None:
    terms = world.terms(1.0, -0.5, 0.25)

    one = tensors(tmp_path / "a", world.base, terms, method=method, **options)
    two = tensors(tmp_path / "b", world.base, terms, method=plain, **plain_options)

    assert one == two


# --- DELLA's ranks ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_probability_rises_with_the_rank_of_the_magnitude_in_its_row(
    dtype: torch.dtype,
) -> None:
    rows = torch.tensor([[-5.0, 0.0, 3.0, -1.0, 4.0], [2.0, 2.0, 0.0, -0.0, -2.0]], dtype=dtype)

    found = della.keep_probabilities(rows, 0.5, 0.25).reshape(2, 5)

    assert found.tolist() == [
        [0.75, 0.25, 0.5, 0.375, 0.625],
        [0.5, 0.625, 0.25, 0.375, 0.75],  # equal magnitudes: by index
    ]


def test_the_ends_of_the_range_are_exact_and_a_single_column_has_the_density() -> None:
    for columns in (2, 3, 10, 999):
        found = della.keep_probabilities(torch.arange(columns)[None].float(), 0.9, 0.1)
        assert (found[0], found[-1]) == (0.9 - 0.1, 1.0)
        assert (np.diff(found) > 0).all()
    assert della.keep_probabilities(torch.ones(3, 1), 0.3, 0.2).tolist() == [0.3] * 3


def test_a_vector_is_one_row_however_it_is_cut_into_blocks(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A checkpoint alone: no product, whose bits depend on the blocks.
    terms = [TermOf(world.three, 1.0, "checkpoint")]
    runs = [
        {"method": "della_linear", "density": 0.3},
        {"method": "dare_ties", "trim_density": 0.05, "scope": "model"},
        {"method": "breadcrumbs", "density": 0.3},
    ]
    whole = [
        tensors(tmp_path / f"a{number}", world.base, terms, **options)
        for number, options in enumerate(runs)
    ]
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 5)

    pieces = [
        tensors(tmp_path / f"b{number}", world.base, terms, **options)
        for number, options in enumerate(runs)
    ]

    assert whole == pieces


# --- Breadcrumbs, SCE, consensus by hand -----------------------------------------------------


@pytest.mark.parametrize(
    ("density", "gamma", "expected"),
    [
        (0.5, 0.2, [0.0, -3.0, 2.0, 0.0, 0.0]),
        (0.4, 0.6, [0.0, 0.0, 0.0, 0.0, 1.0]),  # two are kept: 1, and a zero
        (0.01, 0.0, [0.0, 0.0, 0.0, -4.0, 0.0]),
        (0.5, 0.01, [0.0, -3.0, 0.0, -4.0, 0.0]),  # mergekit 0.1.5 keeps nothing here
        (1.0, 0.0, [0.0, -3.0, 2.0, -4.0, 1.0]),
    ],
)
def test_the_largest_are_removed_and_the_next_kept(
    density: float, gamma: float, expected: list[float]
) -> None:
    tau = torch.tensor([0.0, -3.0, 2.0, -4.0, 1.0])
    removed, keep = breadcrumbs.band_counts(density, gamma, 5)

    band = breadcrumbs.find_band([tau[:2], tau[2:]], 5, removed, keep)
    found = [breadcrumbs.keep_band(tau[a:b], band, start=a) for a, b in ((0, 2), (2, 5))]

    assert torch.cat(found).tolist() == expected


@given(
    density=st.floats(0, 1, exclude_min=True),
    gamma=st.floats(0, 1, exclude_max=True),
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=40),
)
@settings(deadline=None)
def test_a_band_keeps_what_sorting_would(density: float, gamma: float, values: list[int]) -> None:
    removed, keep = breadcrumbs.band_counts(density, gamma, len(values))
    tau = torch.tensor(values, dtype=torch.float32)
    order = sorted(range(len(values)), key=lambda index: (-abs(values[index]), index))
    expected = [0.0] * len(values)
    for index in order[removed : removed + keep]:
        expected[index] = float(values[index])

    band = breadcrumbs.find_band([tau], len(values), removed, keep)

    assert 1 <= keep <= len(values) - removed
    assert breadcrumbs.keep_band(tau, band, start=0).tolist() == expected


def test_the_spread_is_that_over_all_terms_of_the_recipe() -> None:
    rows = [torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, 2.0, 0.0])]

    assert sce.spread(rows, 2).tolist() == [2.0, 0.0, 0.0]
    # Two terms without the tensor are zero there: 1, 3, 0, 0 has the mean 1.
    assert sce.spread(rows, 4).tolist() == [6.0, 4.0, 0.0]


@pytest.mark.parametrize("compute", ["float32", "float64"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_equal_terms_differ_nowhere_so_nothing_of_them_is_selected(
    tmp_path: Path, count: int, compute: str
) -> None:
    # The mean of three equal numbers is another number in floating point for every seventh.
    drawn = np.random.default_rng(1).standard_normal(999).astype(np.float32)

    def model(name: str, sign: float) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        tiny.write_json(folder / "config.json", {"model_type": "llama"})
        arrays = {"a.vector": sign * drawn, "b.scalar": np.float32(sign)}
        tiny.write_safetensors(folder / "model.safetensors", arrays)
        return folder

    base, equal = model("base", 1.0), model("equal", 3.0)
    terms = [TermOf(equal, 1.0, "checkpoint", f"equal-{number}") for number in range(count)]

    some = tensors(tmp_path / "some", base, terms, method="sce", density=0.5, compute=compute)
    merging.build(tmp_path / "all", base, terms, method="sce", density=1.0, compute=compute)

    assert some == merging.raw_tensors(base)
    found = tiny.read_tensors(tmp_path / "all")
    np.testing.assert_allclose(found["a.vector"], 3 * drawn, rtol=1e-6)
    assert found["b.scalar"] == 3.0


def test_weights_are_shares_of_the_squares() -> None:
    assert sce.shares([3.0, 1.0]) == (0.75, 0.25)
    assert sce.shares([0.0, 0.0]) == (0.0, 0.0)


def test_an_element_stays_where_enough_terms_outweigh_the_others() -> None:
    # Columns: both matter; the first alone; against each other; nobody outweighs two others.
    rows = [torch.tensor([2.0, 8.0, 1.0, 1.0]), torch.tensor([2.0, 1.0, -1.0, 1.0])]
    rows.append(torch.tensor([0.0, 0.0, 0.0, 1.0]))

    def kept(mask_lambda: float, min_terms: int) -> list[float]:
        return consensus.merge(
            rows, mask_lambda=mask_lambda, min_terms=min_terms, absent=0
        ).tolist()

    assert kept(1.0, 1) == [4.0, 9.0, 0.0, 0.0]
    assert kept(1.0, 2) == [4.0, 0.0, 0.0, 0.0]
    assert kept(0.5, 3) == [0.0, 0.0, 0.0, 3.0]
    assert kept(0.0, 3) == [4.0, 9.0, 0.0, 3.0]


def test_a_single_operand_is_too_few_for_sce(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a list of at least 2 terms"):
        merging.build(tmp_path, world.base, world.terms(1.0), method="sce")


@pytest.mark.parametrize("compute", ["float32", "float64"])
@pytest.mark.parametrize("method", DRAWN)
@pytest.mark.parametrize("density", [1e-10, 1e-40, 5e-324])
def test_a_density_below_all_probabilities_keeps_nothing(
    world: World, tmp_path: Path, density: float, method: str, compute: str
) -> None:
    options: dict[str, Any] = DRAWN[method] | {"density": density}
    if method.startswith("della"):
        options["epsilon"] = 0.0

    found = tensors(
        tmp_path, world.base, world.terms(1.0), method=method, compute=compute, **options
    )

    assert found == merging.raw_tensors(world.base)


# --- edges -----------------------------------------------------------------------------------

METHODS = [*DRAWN, "breadcrumbs", "breadcrumbs_ties", "sce", "consensus"]


@pytest.mark.parametrize("method", METHODS)
def test_empty_tensors_and_single_numbers_are_merged(tmp_path: Path, method: str) -> None:
    def model(name: str, value: float) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        tiny.write_json(folder / "config.json", {"model_type": "llama"})
        arrays = {
            "a.empty": np.zeros((0, 4), np.float32),
            "b.none": np.zeros((0,), np.float32),
            "c.scalar": np.float32(value),
            "d.one": np.float32([value]),
            "e.column": np.full((3, 1), value, np.float32),
        }
        tiny.write_safetensors(folder / "model.safetensors", arrays)
        return folder

    base = model("base", 1.0)
    terms = [TermOf(model(name, value), 1.0, "checkpoint") for name, value in (("x", 2), ("y", 3))]

    merging.build(tmp_path / "out", base, terms, method=method)

    assert tiny.read_tensors(tmp_path / "out")["a.empty"].shape == (0, 4)


@pytest.mark.parametrize("method", METHODS)
def test_a_value_that_is_no_number_stops_the_build(
    world: World, tmp_path: Path, method: str
) -> None:
    bad = shutil.copytree(world.three, tmp_path / "bad")
    arrays = {name: array.copy() for name, array in tiny.read_tensors(bad).items()}
    arrays["model.norm.weight"][3] = np.nan
    tiny.write_safetensors(bad / "model.safetensors", arrays)
    terms = [*world.terms(1.0), TermOf(bad, 1.0, "checkpoint")]

    with pytest.raises(InputError, match="non-finite value") as caught:
        merging.build(tmp_path / "out", world.base, terms, method=method)

    assert (caught.value.tensor, caught.value.term) == ("model.norm.weight", "checkpoint bad@1")


SHARES = {"layers": [0.5, 0.7], "embeddings": 0.5, "head": 0.5}


@pytest.mark.parametrize(
    ("options", "field", "tensor", "why"),
    [
        (
            {"method": "della", "density": 0.1},
            "recipe.parameters.epsilon",
            "lm_head.weight",
            "expected density - epsilon above 0 and density + epsilon at most 1, found density 0.1 "
            "and epsilon 0.1",
        ),
        (
            {"method": "della_linear", "density": SHARES, "epsilon": 0.4},
            "recipe.parameters.epsilon",
            "model.layers.1.input_layernorm.weight",
            "expected density - epsilon above 0 and density + epsilon at most 1, found density 0.7 "
            "and epsilon 0.4",
        ),
        (
            {"method": "breadcrumbs", "density": SHARES, "gamma": 0.4},
            "recipe.parameters.gamma",
            "model.layers.1.input_layernorm.weight",
            "expected density + gamma at most 1, found 0.7 + 0.4",
        ),
        (
            {"method": "dare_ties", "scope": "model", "trim_density": SHARES},
            "recipe.parameters.trim_density",
            "",
            "a schedule of trim_density needs scope: tensor",
        ),
        (
            {"method": "dare_linear", "seed": 2**53},
            "recipe.seed",
            "",
            "expected a whole number from 0 to 9007199254740991, found 9007199254740992",
        ),
        (
            {"method": "consensus", "min_terms": 4},
            "recipe.parameters.min_terms",
            "",
            "expected at most the 3 terms of the recipe, found 4",
        ),
        (
            {"method": "della", "combine": "weighted_mean", "weights": (1.0, 1.0, -1.0)},
            "recipe.parameters.combine",
            "lm_head.weight",
            "expected no negative weight to divide by the sum, found -1.0",
        ),
        (
            {"method": "dare_linear", "weights": (1.0, 1.0, -1.0)},
            "recipe.parameters.normalize",
            "lm_head.weight",
            "expected no negative weight to divide by the sum, found -1.0",
        ),
    ],
    ids=lambda value: value.get("method") if isinstance(value, dict) else "",
)
def test_numbers_that_have_no_meaning_are_refused_before_anything_is_read(
    world: World, tmp_path: Path, options: dict[str, Any], field: str, tensor: str, why: str
) -> None:
    options = dict(options)
    terms = world.terms(*options.pop("weights", (1.0, 1.0, 1.0)))

    with pytest.raises(InputError) as caught:
        merging.build(tmp_path, world.base, terms, **options)

    assert (caught.value.field, caught.value.why) == (field, why)
    assert caught.value.tensor in (tensor, tensor and "model.embed_tokens.weight")


def test_a_term_cannot_select_by_itself(world: World, tmp_path: Path) -> None:
    terms = [TermOf(world.one, 1.0, parameters={"density": 0.5}), TermOf(world.two)]

    with pytest.raises(InputError, match="expected a parameter that a term may override"):
        merging.build(tmp_path, world.base, terms, method="sce")


def test_a_schedule_of_the_drop_goes_with_trimming_the_whole_model(
    world: World, tmp_path: Path
) -> None:
    options = {"method": "dare_ties", "scope": "model", "trim_density": 0.05, "density": SHARES}

    built = merging.build(tmp_path, world.base, world.terms(1.0, -1.0, 1.0), **options)

    assert all(term["kept"] <= 0.05 for term in built.statistics["terms"])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"method": "dare_linear", "density": 0.25}, 0.25),
        ({"method": "dare_ties", "density": 0.25, "trim_density": 0.5}, 0.25),
        ({"method": "dare_ties", "density": 0.25, "scope": "model"}, 0.25),
        ({"method": "della", "density": 0.75}, 0.75),
        ({"method": "breadcrumbs", "density": 0.5, "gamma": 0.25}, 0.5),
        ({"method": "sce", "density": 0.125}, 0.125),
        ({"method": "consensus"}, 1.0),
    ],
    ids=str,
)
def test_the_report_says_what_is_kept(
    world: World, tmp_path: Path, options: dict[str, Any], kept: float
) -> None:
    built = merging.build(tmp_path, world.base, world.terms(1.0, 1.0, 1.0), **options)

    assert [term["kept"] for term in built.statistics["terms"]] == [kept] * 3
