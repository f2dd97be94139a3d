"""Every way to serve answers as the evaluator says it does; figures are of what they name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from merger import serving, worker
from merger.errors import InputError
from merger.evaluate import generate
from merger.evaluate.adapter import open_adapter
from merger.evaluate.generate import Ask
from merger.evaluate.model import Model, open_model
from tests import merging, tiny
from tests.merging import TermOf
from tests.test_formats import check

PROMPTS = (
    {"text": "Name a bird.", "system": None},
    {"text": "the rain in the morning", "system": "Be brief."},
    {"text": "Say why.", "system": None},
)
TOKENS, REPEATS = 6, 2
STRONG = {"alpha": 96, "targets": ("q_proj", "v_proj", "o_proj", "down_proj")}


class World:
    """A base, two adapters that change its answers, their merge, and the same as an adapter."""

    def __init__(self, folder: Path) -> None:
        self.base = tiny.tiny_base(folder / "base", seed=3)
        self.one = tiny.tiny_adapter(folder / "one", base=self.base, seed=1, **STRONG)
        self.two = tiny.tiny_adapter(folder / "two", base=self.base, seed=2, **STRONG)
        self.merged, self.adapter = folder / "merged", folder / "adapter"
        terms = [TermOf(self.one), TermOf(self.two, 0.5)]
        merging.build(self.merged, self.base, terms)
        merging.build(self.adapter, self.base, terms, artifact=merging.adapter())

    @property
    def inputs(self) -> dict[str, Path]:
        folders = (self.base, self.one, self.two, self.merged, self.adapter)
        return {merging.digest_of(folder): folder for folder in folders}

    def request(self, **changes: Any) -> dict[str, Any]:
        return {
            "format_version": 1,
            "model": {"digest": merging.digest_of(self.merged), "form": "model"},
            "base": merging.digest_of(self.base),
            "adapters": [
                {"label": "one@1", "digest": merging.digest_of(self.one)},
                {"label": "two@1", "digest": merging.digest_of(self.two)},
            ],
            "prompts": list(PROMPTS),
            "batches": [1, 3],
            "tokens": TOKENS,
            "repeats": REPEATS,
            "sides": ["merged", "switched"],
        } | changes

    def run(self, **changes: Any) -> dict[str, Any]:
        torch.set_num_threads(2)
        cpu = torch.device("cpu")
        return serving.run(self.request(**changes), self.inputs, cpu, lambda *_: None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="module")
def found(world: World) -> dict[str, Any]:
    return world.run()


def greedy(model: Model, count: int) -> list[str]:
    """Return what the evaluator has a model answer to the first prompts."""
    tokens = [model.render(str(one["text"]), one["system"]) for one in PROMPTS[:count]]
    answers = generate.answers(model, [Ask(one, TOKENS, "") for one in tokens], lambda _: None)
    return [model.text(answer) for answer in answers]


def answers(found: Mapping[str, Any], mode: str, batch: int) -> list[str]:
    (row,) = (row for row in found["rows"] if (row["mode"], row["batch"]) == (mode, batch))
    said: list[str] = row["answers"]
    return said


@pytest.mark.parametrize("batch", [1, 3])
def test_every_mode_answers_as_the_evaluator_says_of_it_alone(
    world: World, found: dict[str, Any], batch: int
) -> None:
    alone = {
        "merged": open_model(world.merged, "cpu"),
        "one@1": open_adapter(world.one, world.base, "cpu"),
        "two@1": open_adapter(world.two, world.base, "cpu"),
        "adapters off": open_model(world.base, "cpu"),
    }

    expected = {mode: greedy(model, batch) for mode, model in alone.items()}

    assert {mode: answers(found, mode, batch) for mode in alone} == expected
    assert len({str(said) for said in expected.values()}) == len(alone), "modes that differ"


def test_every_mode_is_measured_at_every_batch_size_as_often_as_asked(
    found: dict[str, Any],
) -> None:
    modes = ("merged", "one@1", "two@1", "adapters off")
    assert [(row["mode"], row["batch"]) for row in found["rows"]] == [
        (mode, batch) for batch in (1, 3) for mode in modes
    ]
    for row in found["rows"]:
        assert len(row["speeds"]) == REPEATS
        assert min(row["speeds"]) > 0
        assert min(row["speeds"]) <= row["tokens_per_second"] <= max(row["speeds"])
        assert row["first_token_seconds"] > 0
        assert row["token_seconds"]["count"] == REPEATS * (TOKENS - 1)
        assert 0 < row["token_seconds"]["median"] <= row["token_seconds"]["p95"]
        assert len(row["answers"]) == row["batch"]
    assert found["switch"]["count"] == REPEATS * 2 * 2
    assert 0 < found["switch"]["median"] <= found["switch"]["p95"]


def test_the_bytes_are_those_of_the_tensors(world: World, found: dict[str, Any]) -> None:
    def in_memory(folder: Path) -> int:
        return sum(4 * array.size for array in tiny.read_tensors(folder).values())

    merged, switched = found["sides"]["merged"], found["sides"]["switched"]

    assert merged["weight_bytes"] == switched["weight_bytes"] == in_memory(world.base)
    assert [(one["label"], one["weight_bytes"]) for one in switched["adapters"]] == [
        ("one@1", in_memory(world.one)), ("two@1", in_memory(world.two)),
    ]  # fmt: skip
    assert merged["disk_bytes"] == sum(
        path.stat().st_size for path in world.merged.glob("*.safetensors")
    )
    # A model of some kilobytes may find room in pages that are resident already.
    assert found["resident_opened_bytes"] >= found["resident_before_bytes"] > 0
    assert found["cuda_peak_bytes"] is None


def test_one_side_alone_has_its_own_modes_only(world: World) -> None:
    merged, switched = (
        world.run(sides=[side], repeats=1, batches=[1]) for side in ("merged", "switched")
    )

    assert [row["mode"] for row in merged["rows"]] == ["merged"]
    assert merged["switch"] is None
    assert list(merged["sides"]) == ["merged"]
    assert [row["mode"] for row in switched["rows"]] == ["one@1", "two@1", "adapters off"]
    assert list(switched["sides"]) == ["switched"]


def test_a_merged_adapter_is_folded_into_the_base(world: World) -> None:
    digest = merging.digest_of(world.adapter)
    found = world.run(model={"digest": digest, "form": "adapter"}, sides=["merged"])

    assert answers(found, "merged", 3) == greedy(open_adapter(world.adapter, world.base, "cpu"), 3)


def test_the_worker_reports_it_in_the_form_of_the_schema(world: World) -> None:
    events: list[Mapping[str, Any]] = []
    order = {
        "format_version": 1,
        "task": "serve",
        "request": world.request(repeats=1),
        "inputs": {digest: str(folder) for digest, folder in world.inputs.items()},
        "device": "cpu",
        "threads": 2,
        "memory_bytes": None,
    }
    check("work-order", order)

    assert worker.carry_out(order, events.append)

    for event in events:
        check("event", dict(event))
    kinds = [event["event"] for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "report"
    assert events[-2] == {"event": "progress", "done": 16, "total": 16, "unit": "requests"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tokens": 1}, "tokens"),
        ({"repeats": 0}, "repeats"),
        ({"batches": []}, "batches"),
        ({"batches": [True]}, "batches"),
        ({"sides": ["both"]}, "sides"),
        ({"adapters": [{"label": "one@1"}]}, "adapters[0].digest"),
        ({"model": {"digest": "sha256:" + "0" * 64, "form": "gguf"}}, "model.form"),
        ({"base": "sha256:" + "0" * 64}, "inputs"),
        ({"prompts": [{"text": "the " * 600, "system": None}]}, "prompts[0]"),
        ({"format_version": 2}, "format_version"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_its_field(
    world: World, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        world.run(**change)

    assert caught.value.field == field


def test_an_adapter_of_another_shape_is_refused(world: World, tmp_path: Path) -> None:
    wide = tiny.tiny_base(tmp_path / "wide", hidden=32)
    odd = tiny.tiny_adapter(tmp_path / "odd", base=wide, seed=1)
    digest = merging.digest_of(odd)
    request = world.request(adapters=[{"label": "odd@1", "digest": digest}], sides=["switched"])

    with pytest.raises(InputError, match="expected an adapter that PEFT opens"):
        serving.run(request, {**world.inputs, digest: odd}, torch.device("cpu"), lambda *_: None)


def test_a_chat_template_that_refuses_a_prompt_is_told_with_its_place(
    world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "strict"
    shutil.copytree(world.merged, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    settings["chat_template"] = "{{ raise_exception('no system message') }}"
    tiny.write_json(folder / "tokenizer_config.json", settings)
    digest = merging.digest_of(folder)
    request = world.request(model={"digest": digest, "form": "model"}, sides=["merged"])

    with pytest.raises(InputError, match="refuses this: no system message") as caught:
        serving.run(request, {digest: folder}, torch.device("cpu"), lambda *_: None)

    assert caught.value.field == "prompts[0]"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_its_memory_is_told(world: World) -> None:
    found = serving.run(world.request(), world.inputs, torch.device("cuda"), lambda *_: None)

    weights = sum(side["weight_bytes"] for side in found["sides"].values())
    assert found["cuda_peak_bytes"] > weights
    assert answers(found, "merged", 3) == answers(world.run(), "merged", 3)
