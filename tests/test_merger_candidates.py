"""Candidates in memory against what a build of the same request writes, byte for byte."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import schemas
from merger import request
from merger.candidates import Candidates, open_candidates
from merger.engine import Limits
from merger.errors import InputError
from tests import merging, tiny, tiny_models
from tests.merging import TermOf
from tests.test_merger_vocabulary import retokenized

METHODS = [name for name in schemas.methods() if name != "passthrough"]
QUERY = "model.layers.0.self_attn.q_proj.weight"
BFLOAT16 = torch.bfloat16

Bits = Mapping[str, bytes]


class World:
    """A base, two adapters that overlap, and a checkpoint that changes all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = tiny.tiny_base(folder / "base", sharded=True)
        adapters = [
            tiny.tiny_adapter(folder / name, base=self.base, seed=seed, targets=targets)
            for name, seed, targets in (
                ("one", 1, ("q_proj", "v_proj")),
                ("two", 2, ("q_proj", "down_proj")),
            )
        ]
        full = tiny.tiny_checkpoint(folder / "full", base=self.base, seed=3)
        self.adapters = [TermOf(adapter) for adapter in adapters]
        self.all = [*self.adapters, TermOf(full, kind="checkpoint")]
        self._built = 0

    def terms(self, method: str) -> list[TermOf]:
        return self.all[-schemas.methods()[method].get("x-terms-max", len(self.all)) :]

    def build(self, data: Mapping[str, Any]) -> Bits:
        """Return the bytes of every tensor that a fresh build writes."""
        self._built += 1
        output = self.folder / f"built{self._built}"
        merging.build_request(output, data, merging.inputs_of(self.base, self.all))
        return {name: raw for name, (_, _, raw) in merging.raw_tensors(output).items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("candidates"))


Open = Callable[..., Candidates]


@pytest.fixture
def opened(world: World) -> Iterator[Open]:
    """Return what opens a request of the world's operands until the test ends."""
    with ExitStack() as stack:

        def open_(data: Mapping[str, Any], memory_bytes: int | None = None) -> Candidates:
            inputs = merging.inputs_of(world.base, world.all)
            limits = Limits(torch.device("cpu"), 2, memory_bytes)
            return open_candidates(stack, request.parse(data), inputs, limits)

        yield open_


def tensors_of(folder: Path, dtype: torch.dtype = BFLOAT16) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(array.copy()).to(dtype)
        for name, array in tiny.read_tensors(folder).items()
    }


def bits(into: Mapping[str, torch.Tensor], dtype: torch.dtype = BFLOAT16) -> Bits:
    return {
        name: tensor.detach().to(dtype).contiguous().view(torch.uint8).numpy().tobytes()
        for name, tensor in into.items()
    }


def apply(candidates: Candidates, data: Mapping[str, Any], into: Any) -> Bits:
    candidates.apply(request.parse(data), into)
    return bits(into)


def drawn(world: World, method: str, numbers: random.Random) -> dict[str, Any]:
    """Return a request of random numbers and choices; some have no meaning together."""
    facts = schemas.methods()[method]
    parameters = {name: value(one, numbers) for name, one in facts["properties"].items()}
    terms = world.terms(method)
    if facts["x-weights"]:
        low = 0.1 if facts.get("x-averages") or numbers.random() < 0.6 else -1.0
        terms = [replace(one, weight=scheduled(numbers, low, 1.5)) for one in terms]
    if "density" in parameters and facts["properties"]["density"].get("x-per-term", True):
        terms[0] = replace(terms[0], parameters={"density": numbers.uniform(0.3, 0.7)})
    return merging.request_of(world.base, terms, method, seed=numbers.randrange(3), **parameters)


def value(one: Mapping[str, Any], numbers: random.Random) -> Any:
    if "enum" in one:
        return numbers.choice(one["enum"])
    if one["type"] == "boolean":
        return numbers.random() < 0.5
    if one["type"] == "integer":
        return numbers.randint(1, 3)
    limits = one.get("x-range", {})
    low = limits.get("minimum", limits.get("exclusiveMinimum", -1.0))
    high = limits.get("maximum", limits.get("exclusiveMaximum", 1.5))
    margin = 0.05 * (high - low)
    return scheduled(numbers, low + margin, high - margin)


def scheduled(numbers: random.Random, low: float, high: float) -> Any:
    """Return a number, or a schedule one time in three."""
    if numbers.random() < 2 / 3:
        return numbers.uniform(low, high)
    layers = [numbers.uniform(low, high), numbers.uniform(low, high)]
    return {"layers": layers, "rules": [{"match": "*.mlp.*", "value": numbers.uniform(low, high)}]}


def meaningful(world: World, method: str, count: int) -> list[tuple[dict[str, Any], Bits]]:
    """Return random requests that a build accepts, with what it writes."""
    numbers = random.Random(method)
    found: list[tuple[dict[str, Any], Bits]] = []
    while len(found) < count:
        data = drawn(world, method, numbers)
        try:
            found.append((data, world.build(data)))
        except InputError:
            continue
    return found


@pytest.mark.parametrize("method", METHODS)
def test_candidates_are_what_a_build_writes_in_any_order_and_leave_no_trace(
    method: str, world: World, opened: Open
) -> None:
    (first, a), (second, b), (third, c) = meaningful(world, method, 3)
    candidates = opened(first)
    little = opened(first, memory_bytes=4096)
    into = tensors_of(world.base)
    before = bits(into)

    for data, expected in ((first, a), (second, b), (third, c), (first, a), (third, c)):
        assert apply(candidates, data, into) == expected
        assert apply(little, data, into) == expected
    candidates.restore(into)

    assert bits(into) == before
    assert little.held_bytes <= 2048 < candidates.held_bytes


@pytest.mark.parametrize("method", ["ties", "slerp", "breadcrumbs_ties", "dare_linear"])
def test_tensors_of_several_blocks_have_the_bits_of_a_build(method: str, tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", hidden=512, dtype="float32")
    full = tiny.tiny_checkpoint(tmp_path / "full", base=base, seed=3)
    adapter = tiny.tiny_adapter(tmp_path / "one", base=base, seed=1, targets=("q_proj",))
    terms = [TermOf(full, kind="checkpoint"), TermOf(adapter)]
    data = merging.request_of(base, terms, method)

    found = applied_twice(data, base, terms, tensors_of(base, torch.float32), tmp_path)

    assert found[0] == found[1] == found[2]


def test_another_method_may_be_asked_of_the_same_operands(world: World, opened: Open) -> None:
    terms = [replace(term, weight=0.5) for term in world.all[1:]]
    plain = [replace(term, weight=1.0) for term in world.all[1:]]
    candidates = opened(merging.request_of(world.base, terms, "ties"))
    into = tensors_of(world.base)

    for method in ("ties", "slerp", "dare_ties", "karcher", "task_arithmetic"):
        both = terms if schemas.methods()[method]["x-weights"] else plain
        for order in (both, both[::-1]):  # slerp's terms have an order
            data = merging.request_of(world.base, order, method)
            assert apply(candidates, data, into) == world.build(data)


def test_terms_may_be_left_out_and_their_tensors_are_the_bases_again(
    world: World, opened: Open
) -> None:
    candidates = opened(merging.request_of(world.base, world.adapters, "linear"))
    into = tensors_of(world.base)

    for terms in (world.adapters, world.adapters[:1], world.adapters[1:], world.adapters):
        data = merging.request_of(world.base, terms, "linear")
        assert apply(candidates, data, into) == world.build(data)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_output_dtype_rounds_once_and_a_float32_model_holds_it_exactly(
    dtype: str, world: World, opened: Open
) -> None:
    candidates = opened(merging.request_of(world.base, world.adapters))
    wide = tensors_of(world.base, torch.float32)
    terms = [replace(world.adapters[0], weight=0.3)]

    data = merging.request_of(world.base, terms, dtype=dtype)
    candidates.apply(request.parse(data), wide)

    built, found = world.build(data), bits(wide, getattr(torch, dtype))
    assert {name: found[name] for name in candidates.touched} == {
        name: built[name] for name in candidates.touched
    }


def test_float64_is_computed_where_it_was_opened(world: World, opened: Open) -> None:
    data = merging.request_of(world.base, world.all, "ties", compute="float64", density=0.4)
    candidates = opened(data)

    assert apply(candidates, data, tensors_of(world.base)) == world.build(data)
    with pytest.raises(InputError, match=r"recipe\.compute: expected float64, as it was opened"):
        candidates.apply(request.parse(merging.request_of(world.base, world.all)), {})


def test_integers_and_what_no_term_has_are_left_alone(
    world: World, tmp_path: Path, opened: Open
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    tiny.write_json(base / "config.json", json.loads((world.base / "config.json").read_text()))
    raw = merging.raw_tensors(world.base) | {"model.ids": ("I64", (2,), bytes(16))}
    tiny.write_raw(base / "model.safetensors", raw)
    terms = [TermOf(term.folder) for term in world.adapters]
    data = merging.request_of(base, terms)
    into = tensors_of(base) | {"model.ids": torch.tensor([7, 8])}
    norm = into["model.norm.weight"]
    norm.fill_(5.0)

    with ExitStack() as stack:
        limits = Limits(torch.device("cpu"), 1)
        inputs = merging.inputs_of(base, terms)
        candidates = open_candidates(stack, request.parse(data), inputs, limits)
        candidates.apply(request.parse(data), into)
        changed = into[QUERY].clone()
        candidates.restore(into)

    assert not torch.equal(changed, into[QUERY])
    assert set(candidates.touched) & {"model.ids", "model.norm.weight"} == set()
    assert into["model.ids"].tolist() == [7, 8]
    assert torch.equal(norm, torch.full_like(norm, 5.0))


def test_what_is_held_is_told_by_operand_in_bytes(world: World, opened: Open) -> None:
    data = merging.request_of(world.base, world.all)
    whole = sum(len(raw) for _, _, raw in merging.raw_tensors(world.base).values())
    factors = sum(len(raw) for _, _, raw in merging.raw_tensors(world.adapters[0].folder).values())

    held = opened(data).held
    little = opened(data, memory_bytes=2 * whole).held

    assert {label: holding.held for label, holding in held.items()} == {
        "base tiny": whole,
        "checkpoint full@1": whole,
        "adapter one@1": factors,
        "adapter two@1": held["adapter two@1"].whole,
    }
    assert (little["base tiny"].held, little["checkpoint full@1"].held) == (whole, 0)
    assert little["checkpoint full@1"].whole == whole
    assert little["adapter one@1"].held == 0


def test_masks_are_counted_once_per_term_whatever_was_asked_before(
    world: World, opened: Open
) -> None:
    one, other = (
        merging.request_of(world.base, world.adapters, "dare_linear", density=density)
        for density in (0.3, 0.6)
    )
    candidates = opened(one)
    into = tensors_of(world.base)
    operands = candidates.held_bytes
    sizes = {name: tensor.numel() // 8 for name, tensor in into.items()}
    masks = sum(
        sizes[name.removeprefix("base_model.model.").replace(".lora_A", "")]
        for term in world.adapters
        for name in merging.raw_tensors(term.folder)
        if ".lora_A" in name
    )

    for data in (one, other, one):
        candidates.apply(request.parse(data), into)
        assert candidates.held_bytes == operands + masks


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj"], "use_dora": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": [1, 3]},
    ],
    ids=["DoRA", "saved module", "saved tokens"],
)
@pytest.mark.parametrize("memory_bytes", [None, 4096])
def test_every_kind_of_adapter_has_the_bits_of_a_build(
    options: dict[str, Any], memory_bytes: int | None, tmp_path: Path
) -> None:
    base = tiny_models.write_base("Llama", tmp_path / "base")
    terms = [TermOf(tiny_models.write_adapter(base, tmp_path / "adapter", **options), 0.7)]
    data = merging.request_of(base, terms, "ties", density=0.3)
    merging.build(tmp_path / "out", base, terms, method="ties", density=0.3)
    into = tensors_of(base, torch.float32)

    with ExitStack() as stack:
        limits = Limits(torch.device("cpu"), 2, memory_bytes)
        inputs = merging.inputs_of(base, terms)
        candidates = open_candidates(stack, request.parse(data), inputs, limits)
        candidates.apply(request.parse(data), into)
        candidates.apply(request.parse(data), into)

    expected = {name: raw for name, (_, _, raw) in merging.raw_tensors(tmp_path / "out").items()}
    assert bits(into, torch.float32) == expected


def test_another_padding_of_the_vocabulary_leaves_what_is_held_as_it_is(tmp_path: Path) -> None:
    # In float32, where rows that are replaced in place would be those of the base in memory.
    base = tiny.tiny_base(tmp_path / "base", dtype="float32")
    full = retokenized(tmp_path / "full", base, rows=280)
    terms = [TermOf(full, 0.5, "checkpoint"), TermOf(tiny_adapter(tmp_path, base), 0.5)]
    data = merging.request_of(base, terms, "linear")

    found = applied_twice(data, base, terms, tensors_of(base, torch.float32), tmp_path)

    assert found[0] == found[1] == found[2]


def test_a_union_of_vocabularies_is_merged_in_memory(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", dtype="float32")
    full = retokenized(tmp_path / "full", base, added=["<new>"], rows=280)
    terms = [TermOf(full, 0.5, "checkpoint"), TermOf(tiny_adapter(tmp_path, base), 0.5)]
    data = merging.request_of(base, terms, "linear")
    data["recipe"]["tokenizer"] = "union"
    into = {
        name: torch.zeros(shape) for name, shape in grown(tiny.model_shapes(base), rows=272).items()
    }

    found = applied_twice(data, base, terms, into, tmp_path)

    assert found[0] == found[1] == found[2]


def grown(shapes: Mapping[str, tuple[int, ...]], rows: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes with so many rows of the vocabulary."""
    return {n: (rows, *s[1:]) if n == "model.embed_tokens.weight" else s for n, s in shapes.items()}


def applied_twice(
    data: Mapping[str, Any], base: Path, terms: list[TermOf], into: Any, folder: Path
) -> tuple[Bits, Bits, Bits]:
    """Return the bits after one candidate, after the same once more, and of a build."""
    inputs = merging.inputs_of(base, terms)
    merging.build_request(folder / "out", data, inputs)
    built = {name: raw for name, (_, _, raw) in merging.raw_tensors(folder / "out").items()}
    with ExitStack() as stack:
        limits = Limits(torch.device("cpu"), 2)
        candidates = open_candidates(stack, request.parse(data), inputs, limits)
        first, second = (_applied(candidates, data, into) for _ in range(2))
    return first, second, built


def _applied(candidates: Candidates, data: Mapping[str, Any], into: Any) -> Bits:
    candidates.apply(request.parse(data), into)
    return bits(into, torch.float32)


def test_a_union_needs_all_its_terms_in_their_order(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base")
    full = retokenized(tmp_path / "full", base, added=["<new>"], rows=280)
    terms = [TermOf(full, 0.5, "checkpoint"), TermOf(tiny_adapter(tmp_path, base), 0.5)]
    data = merging.request_of(base, terms, "linear")
    data["recipe"]["tokenizer"] = "union"
    fewer = json.loads(json.dumps(data))
    del fewer["recipe"]["terms"][0]

    with ExitStack() as stack:
        limits = Limits(torch.device("cpu"), 2)
        inputs = merging.inputs_of(base, terms)
        candidates = open_candidates(stack, request.parse(data), inputs, limits)
        with pytest.raises(InputError, match=r"recipe\.terms: a union of vocabularies needs all"):
            candidates.apply(request.parse(fewer), {})


def tiny_adapter(folder: Path, base: Path) -> Path:
    return tiny.tiny_adapter(folder / "adapter", base=base, seed=5, targets=("q_proj",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data["base"].update(digest="sha256:" + "0" * 64),
            "base: expected sha256:…, as it was opened, found sha256:…",
        ),
        (
            lambda data: data["recipe"]["terms"][1]["input"].update(digest="sha256:" + "f" * 64),
            "recipe.terms[adapter NAME@1]: expected an operand that was opened, found sha256:…",
        ),
        (
            lambda data: data["recipe"]["terms"][1]["input"].update(version=2),
            "recipe.terms[adapter NAME@2]: expected an operand that was opened, found sha256:…",
        ),
        (
            lambda data: data.update(output=merging.adapter(rank=4)),
            "output.form: expected model, as it was opened, found adapter",
        ),
        (
            lambda data: data["recipe"].update(compute="float64"),
            "recipe.compute: expected float32, as it was opened, found float64",
        ),
        (
            lambda data: data["recipe"].update(tokenizer="union"),
            "recipe.tokenizer: expected base, as it was opened, found union",
        ),
    ],
    ids=["base", "bytes", "version", "form", "compute", "tokenizer"],
)
def test_another_base_or_set_of_operands_is_refused(
    change: Callable[[Any], None], message: str, world: World, opened: Open
) -> None:
    data = merging.request_of(world.base, world.adapters)
    candidates = opened(data)
    into = tensors_of(world.base)
    before = bits(into)
    other = json.loads(json.dumps(data))
    name = other["recipe"]["terms"][1]["input"]["name"]

    change(other)

    with pytest.raises(InputError) as caught:
        candidates.apply(request.parse(other), into)
    assert _short(str(caught.value)) == message.replace("NAME", name)
    assert bits(into) == before


def _short(text: str) -> str:
    words = (
        f"sha256:…{word[71:]}" if word.startswith("sha256:") else word for word in text.split()
    )
    return " ".join(words)


def test_an_artifact_that_is_no_model_or_a_stack_is_not_opened(world: World, opened: Open) -> None:
    adapter = merging.request_of(world.base, world.adapters, artifact=merging.adapter(rank=4))
    stack = merging.request_of(world.base, [])
    slices = [{"term": None, "layers": [0, 2]}]
    stack["recipe"] |= {"method": "passthrough", "parameters": {}, "slices": slices}

    with pytest.raises(InputError, match=r"output\.form: expected model, found adapter"):
        opened(adapter)
    with pytest.raises(InputError, match=r"recipe\.method: passthrough has no numbers"):
        opened(stack)


def test_tensors_that_cannot_take_the_values_are_refused(world: World, opened: Open) -> None:
    data = merging.request_of(world.base, world.adapters)
    candidates = opened(data)
    into = tensors_of(world.base)
    other = QUERY.replace("0", "1")

    def refused(changed: Mapping[str, torch.Tensor]) -> str:
        with pytest.raises(InputError) as caught:
            candidates.apply(request.parse(data), into | changed)
        return str(caught.value).removeprefix(f"{QUERY}: ").removeprefix(f"{other}: ")

    assert refused({QUERY: into[QUERY][:3]}) == (
        "expected shape [16, 16] to write into, found [3, 16]"
    )
    assert refused({QUERY: into[QUERY].half()}) == (
        "expected a dtype to write into that holds torch.bfloat16, found torch.float16"
    )
    assert refused({other: into[QUERY]}) == (
        f"expected memory of its own to write into, found that of {QUERY}"
    )
    del into[QUERY]
    assert refused({}) == "expected this tensor to write into, found none"


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "slerp"])
def test_what_is_not_finite_is_refused_as_in_a_build(
    method: str, world: World, tmp_path: Path
) -> None:
    tensors = tiny.read_tensors(world.all[2].folder)
    tensors[QUERY][3, 5] = float("nan")
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    tiny.write_safetensors(spoilt / "model.safetensors", tensors, dtype="bfloat16")
    tiny.write_json(spoilt / "config.json", json.loads((world.base / "config.json").read_text()))
    terms = [TermOf(spoilt, kind="checkpoint"), world.adapters[0]]
    data = merging.request_of(world.base, terms, method)
    inputs = merging.inputs_of(world.base, terms)

    with ExitStack() as stack:
        limits = Limits(torch.device("cpu"), 2)
        candidates = open_candidates(stack, request.parse(data), inputs, limits)
        with pytest.raises(InputError) as found:
            candidates.apply(request.parse(data), tensors_of(world.base))

    with pytest.raises(InputError) as expected:
        merging.build_request(tmp_path / "out", data, inputs)
    assert str(found.value) == str(expected.value)
    assert str(found.value) == f"checkpoint spoilt@1: {QUERY}: non-finite value"


def test_a_base_that_is_not_finite_is_to_blame_and_no_term_as_in_a_build(
    world: World, tmp_path: Path
) -> None:
    base = tiny.tiny_base(tmp_path / "base")
    tensors = tiny.read_tensors(base)
    tensors[QUERY][3, 5] = float("nan")
    tiny.write_safetensors(base / "model.safetensors", tensors, dtype="bfloat16")
    terms = world.all[2:]
    data = merging.request_of(base, terms)
    inputs = merging.inputs_of(base, terms)

    with pytest.raises(InputError) as expected:
        merging.build_request(tmp_path / "out", data, inputs)
    with ExitStack() as stack:
        limits = Limits(torch.device("cpu"), 2)
        candidates = open_candidates(stack, request.parse(data), inputs, limits)
        with pytest.raises(InputError) as found:
            candidates.apply(request.parse(data), tensors_of(world.base))

    assert str(found.value) == str(expected.value) == f"base tiny: {QUERY}: non-finite value"


def test_a_value_beyond_the_output_dtype_is_refused_and_the_next_candidate_is_whole(
    world: World, opened: Open
) -> None:
    plain = merging.request_of(world.base, world.all, "task_arithmetic")
    large = merging.request_of(world.base, world.all, "task_arithmetic", lambda_=1e39)
    candidates = opened(plain)
    into = tensors_of(world.base)

    with pytest.raises(InputError, match=r"output\.dtype: .* beyond the range of BF16"):
        candidates.apply(request.parse(large), into)

    assert apply(candidates, plain, into) == world.build(plain)


@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT16])
def test_a_model_loaded_once_has_the_logits_of_every_artifact(
    dtype: torch.dtype, world: World, tmp_path: Path, opened: Open
) -> None:
    from transformers import AutoModelForCausalLM

    def load(folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = model(torch.arange(24)[None]).logits
        return found

    model = load(world.base)
    into = dict(model.named_parameters())
    base = logits(model)
    candidates = opened(merging.request_of(world.base, world.all, "ties"))
    threads = torch.get_num_threads()

    for number, density in enumerate((0.2, 0.6)):
        data = merging.request_of(world.base, world.all, "ties", density=density)
        candidates.apply(request.parse(data), into)
        output = tmp_path / f"out{number}"
        merging.build_request(output, data, merging.inputs_of(world.base, world.all))
        torch.set_num_threads(threads)  # a build leaves one, a candidate as many as there were
        assert torch.equal(logits(model), logits(load(output)))
        assert not torch.equal(logits(model), base)
    candidates.restore(into)

    assert torch.equal(logits(model), base)
    assert torch.get_num_threads() == threads


def test_the_threads_of_whoever_evaluates_are_left_as_they_were(world: World, opened: Open) -> None:
    data = merging.request_of(world.base, world.adapters)
    candidates = opened(data)
    before = torch.get_num_threads()

    try:
        torch.set_num_threads(2)
        apply(candidates, data, tensors_of(world.base))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
