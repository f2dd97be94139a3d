"""Defects measured in other merging tools, each shown not to be one of ours.

mergekit 0.1.5: a changed weight or a swapped adapter was not rebuilt, config.json came from a donor
that changed from run to run, TIES turned a lone negative weight positive, the head took the first
value of a schedule. PEFT 0.21.2: merging rsLoRA adapters doubled their scale, merging DoRA adapters
lost their magnitudes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import merging, oracle, tiny
from tests.conftest import Repository
from tests.e2e.conftest import digests
from tests.merging import TermOf

MERGE = "catalog/merges/both-skills.yaml"


@pytest.mark.slow
def test_a_changed_weight_is_rebuilt(synced: Repository) -> None:
    before = digests(synced)["both-skills"]
    synced.edit(MERGE, "weight: 0.8", "weight: 0.7")

    assert synced.run("sync").code == 0

    assert digests(synced)["both-skills"] != before


def test_a_swapped_adapter_never_passes_for_the_declared_one(repository: Repository) -> None:
    folder = repository.root / "catalog/adapters"
    other = (folder / "brief/2/weights/adapter_model.safetensors").read_bytes()
    (folder / "brief/1/weights/adapter_model.safetensors").write_bytes(other)

    ran = repository.run("validate")

    assert ran.code == 1
    assert "catalog/adapters/brief/1/adapter.yaml" in ran.out + ran.err
    assert "weights.digest" in ran.out + ran.err


def test_config_comes_from_the_base_whoever_is_merged_in_whatever_order(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base")
    models = [
        tiny.tiny_checkpoint(tmp_path / f"model{seed}", base=base, seed=seed) for seed in (1, 2)
    ]
    for number, model in enumerate(models, 1):
        config = json.loads((model / "config.json").read_text())
        tiny.write_json(model / "config.json", config | {"rms_norm_eps": number / 10})

    for number, order in enumerate((models, models[::-1])):
        terms = [TermOf(model, 1.0, "checkpoint") for model in order]
        merging.build(tmp_path / f"out{number}", base, terms, method="linear")
        built = (tmp_path / f"out{number}/config.json").read_bytes()
        assert built == (base / "config.json").read_bytes()


def test_a_lone_negative_weight_subtracts_through_every_sign_election(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", dtype="float32", exact=True)
    adapter = tiny.tiny_adapter(tmp_path / "adapter", base=base, seed=1, exact=True)
    for method, options in {
        "ties": {"density": 1.0},
        "dare_ties": {"density": 1.0},
        "breadcrumbs_ties": {"density": 1.0, "gamma": 0.0},
        "task_arithmetic": {},
    }.items():
        folder = tmp_path / method
        merging.build(folder, base, [TermOf(adapter, -1.0)], method=method, **options)
        plus = tmp_path / f"{method}-plus"
        merging.build(plus, base, [TermOf(adapter, 1.0)], method=method, **options)
        before, minus, added = (tiny.read_tensors(path) for path in (base, folder, plus))
        for name, array in before.items():
            # Small multiples of powers of two: the sums are exact.
            np.testing.assert_array_equal(array - minus[name], added[name] - array, err_msg=name)
        assert any(np.any(minus[name] != before[name]) for name in before)


def test_the_head_takes_its_own_value_of_a_schedule_not_the_first(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", dtype="float32", tied=False, exact=True)
    model = tiny.tiny_checkpoint(tmp_path / "model", base=base, seed=1, dtype="float32", exact=True)
    for name, schedule, share in (
        ("mean", {"layers": [0.0, 1.0]}, 0.5),
        ("own", {"layers": [0.0, 1.0], "head": 0.25}, 0.25),
    ):
        merging.build(tmp_path / name, base, [TermOf(model, schedule, "checkpoint")])
        before, after, built = (tiny.read_tensors(f) for f in (base, model, tmp_path / name))
        head = "lm_head.weight"
        expected = before[head] + share * (after[head] - before[head])
        np.testing.assert_array_equal(built[head], expected)


@pytest.mark.filterwarnings("ignore")
def test_merged_rslora_adapters_keep_their_scale(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", dtype="float32")
    config = {"use_rslora": True}
    adapters = [
        tiny.tiny_adapter(tmp_path / f"rs{seed}", base=base, seed=seed, config=config)
        for seed in (1, 2)
    ]

    merged = tmp_path / "merged"
    terms = [TermOf(adapter) for adapter in adapters]
    merging.build(merged, base, terms, artifact=merging.adapter())

    before = tiny.read_tensors(base)
    alone = [oracle.folded_by_peft(base, adapter) for adapter in adapters]
    folded = oracle.folded_by_peft(base, merged)
    for name, array in before.items():
        expected = sum(one[name].numpy() - array for one in alone)
        np.testing.assert_allclose(folded[name].numpy() - array, expected, atol=1e-6)
    assert any(np.any(folded[name].numpy() != array) for name, array in before.items())


@pytest.mark.filterwarnings("ignore")
def test_merged_dora_adapters_keep_their_magnitudes(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", dtype="float32")
    before = tiny.read_tensors(base)
    plain = tiny.tiny_adapter(tmp_path / "plain", base=base, seed=1)
    dora = tiny.tiny_adapter(tmp_path / "dora", base=base, seed=2, config={"use_dora": True})
    path = dora / "adapter_model.safetensors"
    factors = tiny.read_tensors(dora)
    for name in [name for name in factors if name.endswith("lora_B.weight")]:
        module = name.removesuffix(".lora_B.weight")
        weight = before[f"{module.removeprefix('base_model.model.')}.weight"]
        # Three times the base's own: nobody could take them for it.
        norms = 3 * np.linalg.norm(weight, axis=1)
        factors[f"{module}.lora_magnitude_vector"] = norms.astype(np.float32)
    tiny.write_safetensors(path, factors)

    merging.build(tmp_path / "merged", base, [TermOf(plain), TermOf(dora)])

    built = tiny.read_tensors(tmp_path / "merged")
    alone = [oracle.folded_by_peft(base, adapter) for adapter in (plain, dora)]
    for name, array in before.items():
        expected = array + sum(one[name].numpy() - array for one in alone)
        np.testing.assert_allclose(built[name], expected, atol=1e-6, rtol=1e-6)
    query = "model.layers.0.self_attn.q_proj.weight"
    assert np.linalg.norm(built[query]) > 2 * np.linalg.norm(before[query])
