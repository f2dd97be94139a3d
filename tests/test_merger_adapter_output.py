"""A merge as an adapter: PEFT folds it to what the same recipe gives as a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merger.errors import InputError
from tests import merging, tiny
from tests.merging import TermOf, adapter
from tests.reference import naive

SCHEDULE = {"layers": [0.25, 1.5], "rules": [{"match": "*.1.*.v_proj.*", "value": -2.0}]}
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapter-output")
    base = tiny.tiny_base(root / "base", dtype="float32")
    (base / "LICENSE.txt").write_text("as it is\n", "utf-8")
    tiny.tiny_adapter(root / "one", base=base, seed=1, rank=2)
    tiny.tiny_adapter(root / "two", base=base, seed=2, rank=3, targets=ALL)
    tiny.tiny_adapter(root / "large", base=base, seed=3, rank=8, config={"use_rslora": True})
    tiny.tiny_checkpoint(root / "tuned", base=base, seed=4, dtype="float32")
    return root


def terms(world: Path, **weights: Any) -> list[TermOf]:
    kinds = {"tuned": "checkpoint"}
    return [
        TermOf(world / name, weight, kind=kinds.get(name, "adapter"))
        for name, weight in weights.items()
    ]


def folded(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the base with the adapter, as PEFT reads and folds them."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(network, folder).merge_and_unload()
    found: dict[str, torch.Tensor] = model.state_dict()
    return found


def merged(folder: Path, base: Path, recipe: list[TermOf], **options: Any) -> dict[str, Any]:
    """Return the weights of the same recipe built as a model in float32."""
    merging.build(folder, base, recipe, dtype="float32", compute="float64", **options)
    return {name: torch.from_numpy(a.copy()) for name, a in tiny.read_tensors(folder).items()}


def relative_distance(
    left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], base: Path
) -> float:
    before = {name: torch.from_numpy(a.copy()) for name, a in tiny.read_tensors(base).items()}
    rest = sum(float((left[name] - right[name]).double().square().sum()) for name in right)
    whole = sum(float((right[name] - before[name]).double().square().sum()) for name in right)
    return float((rest / whole) ** 0.5)


EXACT: dict[str, dict[str, Any]] = {
    "one minus half": {"weights": {"one": 1.0, "two": -0.5}},
    "schedules": {"weights": {"one": SCHEDULE, "two": 0.5}},
    "rsLoRA and more ranks than columns": {
        "weights": {"large": 0.3, "two": 0.7, "one": -1.0},
        "lambda_": 1.5,
    },
    "weight zero": {"weights": {"one": 0.0, "two": 1.0}},
    "linear": {"weights": {"one": 1.0, "two": 3.0}, "method": "linear"},
    "normalised": {"weights": {"one": 1.0, "two": 3.0}, "normalize": True},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", EXACT.values(), ids=EXACT)
def test_a_linear_merge_of_adapters_is_an_adapter_exactly(
    world: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    base, options = world / "base", dict(options)
    recipe = terms(world, **options.pop("weights"))

    built = merging.build(tmp_path / "out", base, recipe, artifact=adapter(), **options)

    expected = merged(tmp_path / "model", base, recipe, **options)
    assert relative_distance(folded(base, tmp_path / "out"), expected, base) < 1e-6
    report = built.statistics["adapter"]
    assert report["relative_error"] < 1e-6
    assert report["energy"] == 1.0
    assert report["inexact"] == 0


def test_the_folder_holds_an_adapter_of_one_rank_and_scale_one(world: Path, tmp_path: Path) -> None:
    recipe = terms(world, one=1.0, two=-0.5)
    built = merging.build(tmp_path / "out", world / "base", recipe, artifact=adapter())

    config = json.loads((tmp_path / "out/adapter_config.json").read_text("utf-8"))
    names = sorted(config.pop("target_modules"))
    shapes = {name: a.shape for name, a in tiny.read_tensors(tmp_path / "out").items()}

    assert sorted(built.files) == [
        "LICENSE.txt", "README.md", "adapter_config.json", "adapter_model.safetensors",
        "recipe.json",
    ]  # fmt: skip
    assert config == {
        "base_model_name_or_path": "tiny",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": 5,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": 5,
        "task_type": "CAUSAL_LM",
    }
    assert len(names) == 14
    prefix = "base_model.model.model.layers.1.mlp.down_proj.lora_"
    assert shapes[prefix + "A.weight"] == (5, 32)
    assert shapes[prefix + "B.weight"] == (16, 5)
    assert len(shapes) == 2 * len(names)


def test_no_other_file_than_the_card_and_the_recipe_leaves_the_model_digest(
    world: Path, tmp_path: Path
) -> None:
    from schemas.digest import hash_folder, model_digest, tree_digest

    built = merging.build(
        tmp_path / "out", world / "base", terms(world, one=1.0), artifact=adapter()
    )

    files = hash_folder(tmp_path / "out")
    told = {name: file for name, file in files.items() if name not in ("README.md", "recipe.json")}
    assert built.artifact_digest == tree_digest(files)
    assert built.model_digest == tree_digest(told) == model_digest(files)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prefix", ["transformer.", ""], ids=["whole names", "no prefix"])
def test_conv1d_modules_take_transposed_factors_under_the_running_models_names(
    tmp_path: Path, prefix: str
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=40, n_positions=16)
    base = tmp_path / "base"
    GPT2LMHeadModel(config).save_pretrained(base)
    # Many files of GPT-2 leave the prefix out; transformers adds it when it opens them.
    stored = tiny.read_safetensors(base / "model.safetensors")
    renamed = {prefix + name.removeprefix("transformer."): one for name, one in stored.items()}
    tiny.write_raw(base / "model.safetensors", renamed)
    modules = ["c_attn", "c_fc"]
    lora = LoraConfig(r=4, target_modules=modules, fan_in_fan_out=True, task_type="CAUSAL_LM")
    for name in ("a", "b"):
        trained = get_peft_model(GPT2LMHeadModel.from_pretrained(base), lora)
        for key, parameter in trained.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(parameter, std=0.1)
        trained.save_pretrained(tmp_path / name)
    recipe = [TermOf(tmp_path / "a", 1.0), TermOf(tmp_path / "b", -0.5)]

    merging.build(tmp_path / "out", base, recipe, artifact=adapter())

    written = json.loads((tmp_path / "out/adapter_config.json").read_text("utf-8"))
    assert written["fan_in_fan_out"] is True
    found = folded(base, tmp_path / "out")
    named = {prefix + name.removeprefix("transformer."): one for name, one in found.items()}
    expected = merged(tmp_path / "model", base, recipe)
    assert relative_distance(named, expected, base) < 1e-6


def numpy_errors(delta: dict[str, Any], rank: int) -> dict[str, float]:
    """Return the least relative error of a matrix of this rank, by Eckart and Young."""
    found = {}
    for name, matrix in delta.items():
        squares = np.linalg.svd(matrix, compute_uv=False) ** 2
        found[name] = float(np.sqrt(squares[rank:].sum() / squares.sum()))
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"method": "ties", "weights": {"one": 1.0, "two": 0.5}},
        {"method": "task_arithmetic", "weights": {"one": 1.0, "two": 0.5, "large": 1.0}},
    ],
    ids=["a method that is not linear", "more ranks than asked for"],
)
def test_a_truncated_adapter_has_the_least_error_that_its_rank_allows(
    world: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    base, rank = world / "base", 2
    options = dict(options)
    recipe = terms(world, **options.pop("weights"))

    built = merging.build(tmp_path / "out", base, recipe, artifact=adapter(rank), **options)

    model = merged(tmp_path / "model", base, recipe, **options)
    before = tiny.read_tensors(base)
    delta = {n: t.numpy().astype(np.float64) - before[n] for n, t in model.items()}
    least = numpy_errors({n: d for n, d in delta.items() if d.any()}, rank)
    factors = tiny.read_tensors(tmp_path / "out")
    report = built.statistics["adapter"]["tensors"]
    for name, (_, _, error, energy) in report["rows"].items():
        prefix = "base_model.model." + name.removesuffix(".weight")
        product = factors[f"{prefix}.lora_B.weight"] @ factors[f"{prefix}.lora_A.weight"]
        measured = np.linalg.norm(delta[name] - product) / np.linalg.norm(delta[name])
        assert error == pytest.approx(least[name], abs=3e-6)
        assert measured == pytest.approx(error, abs=3e-6)
        assert energy == pytest.approx(1 - least[name] ** 2, abs=3e-6)
    assert report["rows"].keys() == least.keys()
    whole = sum(float((d**2).sum()) for d in delta.values())
    lost = sum(float((delta[n] ** 2).sum()) * e**2 for n, e in least.items())
    total = built.statistics["adapter"]["relative_error"]
    assert total == pytest.approx((lost / whole) ** 0.5, abs=3e-6)
    assert list(built.statistics["adapter"]["layers"]["rows"]) == ["0", "1"]


def test_a_rank_that_suffices_cuts_nothing(world: Path, tmp_path: Path) -> None:
    recipe = terms(world, one=1.0, two=-0.5)

    free = merging.build(tmp_path / "free", world / "base", recipe, artifact=adapter())
    given = merging.build(tmp_path / "given", world / "base", recipe, artifact=adapter(64))

    assert given.statistics["adapter"]["rank"] == 5
    assert given.model_digest == free.model_digest


@pytest.mark.parametrize(("dtype", "unit"), [("bfloat16", 2.0**-9), ("float16", 2.0**-12)])
def test_the_error_counts_the_rounding_of_the_factors(
    world: Path, tmp_path: Path, dtype: str, unit: float
) -> None:
    recipe = terms(world, one=1.0, two=-0.5)
    built = merging.build(tmp_path / "out", world / "base", recipe, artifact=adapter(None, dtype))

    report = built.statistics["adapter"]

    assert unit / 4 < report["relative_error"] < 4 * unit
    assert report["energy"] == 1.0


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_the_bytes_do_not_depend_on_threads_or_on_the_order_of_terms(
    world: Path, tmp_path: Path, method: str
) -> None:
    recipe = terms(world, one=1.0, two=0.5, large=1.0)
    options: dict[str, Any] = {"method": method, "artifact": adapter(3)}

    one = merging.build(tmp_path / "1", world / "base", recipe, threads=1, **options)
    two = merging.build(tmp_path / "2", world / "base", recipe[::-1], threads=2, **options)

    assert one.files == two.files
    assert one.statistics == two.statistics


@pytest.mark.filterwarnings("ignore")
def test_weights_of_zero_give_an_adapter_that_changes_nothing(world: Path, tmp_path: Path) -> None:
    built = merging.build(
        tmp_path / "out", world / "base", terms(world, one=0.0), artifact=adapter()
    )

    assert built.statistics["adapter"]["rank"] == 1
    assert built.statistics["adapter"]["relative_error"] == 0.0
    found = folded(world / "base", tmp_path / "out")
    for name, array in tiny.read_tensors(world / "base").items():
        assert torch.equal(found[name], torch.from_numpy(array.copy()))


def test_a_merge_that_is_an_adapter_is_a_term_like_an_adapter(world: Path, tmp_path: Path) -> None:
    recipe = terms(world, one=1.0, two=-0.5)
    merging.build(tmp_path / "inner", world / "base", recipe, artifact=adapter())
    outer = [TermOf(tmp_path / "inner", 2.0, kind="merge")]

    built = merging.build(tmp_path / "outer", world / "base", outer, artifact=adapter())

    inner = tiny.read_tensors(tmp_path / "inner")
    doubled = tiny.read_tensors(tmp_path / "outer")
    assert built.statistics["adapter"]["relative_error"] < 1e-7
    for name, factor in inner.items():
        np.testing.assert_array_equal(doubled[name], 2 * factor if "lora_B" in name else factor)


def refusal(folder: Path, base: Path, recipe: list[TermOf], **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        merging.build(folder, base, recipe, **options)
    assert not any(folder.iterdir())
    return caught.value


def test_what_is_no_exact_adapter_needs_a_rank(world: Path, tmp_path: Path) -> None:
    recipe = terms(world, one=1.0, two=-0.5)

    error = refusal(tmp_path / "a", world / "base", recipe, method="ties", artifact=adapter())

    assert error.field == "output.rank"
    assert error.why == (
        "expected a rank: ties is not linear, so no adapter holds its result exactly"
    )
    whole = terms(world, one=1.0, tuned=0.5)
    error = refusal(tmp_path / "b", world / "base", whole, artifact=adapter())
    assert error.field == "output.rank"
    assert error.tensor == "model.layers.0.mlp.down_proj.weight"
    assert "checkpoint tuned@1 changes this tensor by more than a product" in error.why


def test_a_delta_that_lora_cannot_hold_is_refused_by_name(world: Path, tmp_path: Path) -> None:
    error = refusal(tmp_path / "a", world / "base", terms(world, tuned=1.0), artifact=adapter(4))

    assert error.field == "output.form"
    assert error.tensor == "model.embed_tokens.weight"
    assert error.why == (
        "the merge changes an embedding, and a LoRA adapter holds only matrices of linear modules;"
        " build it as a model"
    )


def test_a_checkpoint_that_changes_linear_modules_alone_becomes_an_adapter(
    world: Path, tmp_path: Path
) -> None:
    before = tiny.read_tensors(world / "base")
    noise = np.random.default_rng(5)
    after = {
        name: a + np.float32(0.01) * noise.standard_normal(a.shape, np.float32)
        if name.endswith("_proj.weight")
        else a
        for name, a in before.items()
    }
    tuned = tiny.tiny_checkpoint(tmp_path / "tuned", base=world / "base", seed=4, dtype="float32")
    tiny.write_safetensors(tuned / "model.safetensors", after)
    recipe = [TermOf(tuned, kind="checkpoint")]

    built = merging.build(tmp_path / "out", world / "base", recipe, artifact=adapter(16))

    # 16 is the smaller side of every matrix, so nothing is cut off.
    assert built.statistics["adapter"]["relative_error"] < 1e-5
    assert built.statistics["adapter"]["inexact"] == 0
    assert built.statistics["touched"]["tensors"] == len(before)


def test_a_factor_beyond_float16_is_refused(world: Path, tmp_path: Path) -> None:
    recipe = terms(world, one=1e9)

    error = refusal(tmp_path / "a", world / "base", recipe, artifact=adapter(None, "float16"))

    assert error.field == "output.dtype"
    assert "beyond the range of F16" in error.why


def test_the_request_of_an_adapter_has_no_shards_and_that_of_a_model_no_rank(world: Path) -> None:
    from merger import request

    recipe = terms(world, one=1.0)
    good = merging.request_of(world / "base", recipe, artifact=adapter(8))
    assert request.parse(good).output.rank == 8
    for output, field in (
        ({"form": "adapter", "dtype": "float32", "max_shard_size": 1}, "output.rank"),
        ({"form": "adapter", "dtype": "base", "rank": 1}, "output.dtype"),
        ({"form": "adapter", "dtype": "float32", "rank": 0}, "output.rank"),
        ({"form": "adapter", "dtype": "float32", "rank": True}, "output.rank"),
        ({"form": "model", "dtype": "base", "max_shard_size": 1, "rank": 2}, "output.rank"),
        ({"form": "folder", "dtype": "base", "max_shard_size": 1}, "output.form"),
    ):
        with pytest.raises(InputError) as caught:
            request.parse({**good, "output": output})
        assert caught.value.field == field


def test_linear_methods_are_those_with_coefficients() -> None:
    import schemas
    from merger.methods import METHODS
    from merger.methods.bound import Additive

    linear = {name for name, facts in schemas.methods().items() if facts.get("x-linear")}

    assert linear == {name for name, method in METHODS.items() if method is Additive}


def test_the_files_keep_the_rules_of_vllm(world: Path, tmp_path: Path) -> None:
    """Hold the files to what vLLM's loader asks for (vllm/lora: peft_helper, lora_model, utils).

    It reads r, lora_alpha and target_modules, and takes one scale lora_alpha / r for all tensors;
    refuses a bias, modules_to_save, DoRA and an r above --max-lora-rank (1, 8, 16, 32, 64, 128, 256,
    320 or 512); wants names that start with base_model.model. and end in lora_A.weight or
    lora_B.weight, of modules whose last name the model declares for LoRA.
    """
    recipe = terms(world, one=1.0, two=-0.5)
    merging.build(tmp_path / "out", world / "base", recipe, artifact=adapter())

    config = json.loads((tmp_path / "out/adapter_config.json").read_text("utf-8"))
    shapes = {name: a.shape for name, a in tiny.read_tensors(tmp_path / "out").items()}

    assert type(config["r"]) is type(config["lora_alpha"]) is int
    assert config["lora_alpha"] / config["r"] == 1
    assert isinstance(config["target_modules"], list)
    assert config["bias"] == "none"
    assert not {"modules_to_save", "use_dora", "rank_pattern", "alpha_pattern"} & config.keys()
    for name, shape in shapes.items():
        *module, side, last = name.removeprefix("base_model.model.").split(".")
        assert name.startswith("base_model.model.")
        assert (side in ("lora_A", "lora_B"), last) == (True, "weight")
        assert shape[0 if side == "lora_A" else 1] == config["r"]
        assert ".".join(module) in config["target_modules"]
        assert module[-1] in ALL


def test_a_delta_beyond_the_compute_type_is_refused_before_its_svd(
    world: Path, tmp_path: Path
) -> None:
    recipe = terms(world, one=3e38, two=3e38)

    options: dict[str, Any] = {"method": "ties", "lambda_": 1e10, "artifact": adapter(2)}
    error = refusal(tmp_path / "a", world / "base", recipe, **options)

    assert error.field == "recipe.compute"
    assert "beyond the range of the compute dtype" in error.why


def test_an_adapter_of_an_embedding_alone_leaves_nothing_to_write(
    tmp_path: Path,
) -> None:
    base = tiny.tiny_base(tmp_path / "base", tied=False)
    folder = tiny.tiny_adapter(tmp_path / "e", base=base, seed=6, targets=("embed_tokens",))
    path = folder / "adapter_model.safetensors"
    # PEFT's own names for the factors of an embedding, which is stored (in, out).
    (a, b), prefix = tiny.read_safetensors(path).values(), "base_model.model.model.embed_tokens"
    named = {f"{prefix}.lora_embedding_A": _turned(b), f"{prefix}.lora_embedding_B": _turned(a)}
    tiny.write_raw(path, named)

    changed = refusal(tmp_path / "a", base, [TermOf(folder)], artifact=adapter())
    empty = refusal(tmp_path / "b", base, [TermOf(folder, 0.0)], artifact=adapter())

    assert changed.tensor == "model.embed_tokens.weight"
    assert empty.why == "expected at least one matrix of a linear module in a term, found none"


@pytest.mark.parametrize("method", ["ties", "task_arithmetic"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_of_rank_one_is_the_best_of_rank_one(
    world: Path, tmp_path: Path, dtype: str, method: str
) -> None:
    recipe = terms(world, one=1.0, two=-0.5)

    built = merging.build(
        tmp_path / "a", world / "base", recipe, method=method, artifact=adapter(1, dtype)
    )
    merging.build(tmp_path / "m", world / "base", recipe, method=method, compute="float64")

    base, whole = tiny.read_tensors(world / "base"), tiny.read_tensors(tmp_path / "m")
    folded = read_deltas(tmp_path / "a")
    assert len(folded) == built.statistics["touched"]["tensors"]
    for name, found in folded.items():
        delta = whole[name].astype(np.float64) - base[name]
        u, s, vh = np.linalg.svd(delta)
        best = s[0] * np.outer(u[:, 0], vh[0])
        assert np.linalg.norm(found - best) < (2e-2 if dtype == "bfloat16" else 1e-4) * s[0]


def read_deltas(folder: Path) -> dict[str, Any]:
    """Return B·A of an adapter of scale 1 by tensor."""
    return naive.task_vector_of_adapter(tiny.read_tensors(folder), 1.0)


def test_tensors_without_elements_need_no_factors(tmp_path: Path) -> None:
    base = tiny.tiny_base(tmp_path / "base", dtype="float32")
    tuned = shutil.copytree(base, tmp_path / "tuned")
    moved = "model.layers.0.self_attn.q_proj.weight"
    for folder, change in ((base, 0.0), (tuned, 0.5)):
        arrays = tiny.read_tensors(base)
        arrays[moved] += np.float32(change)
        arrays["model.none.weight"] = np.zeros((0, 5), np.float32)
        arrays["model.nothing"] = np.zeros((0,), np.float32)
        tiny.write_safetensors(folder / "model.safetensors", arrays)
    recipe = [TermOf(tuned, kind="checkpoint")]

    merging.build(tmp_path / "a", base, recipe, artifact=adapter(2))

    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    assert "model.layers.0.self_attn.q_proj" in config["target_modules"]
    assert not [module for module in config["target_modules"] if "none" in module]


def _turned(tensor: tuple[str, tuple[int, ...], bytes]) -> tuple[str, tuple[int, ...], bytes]:
    """Return a tensor of the same numbers with its two dimensions exchanged."""
    dtype, shape, data = tensor
    return dtype, shape[::-1], data


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "CAUSAL_LM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "SEQ_CLS"),
        (
            {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "SEQ_2_SEQ_LM",
        ),
        ({"architectures": ["LlamaModel"]}, None),
        ({"architectures": None}, None),
    ],
)
def test_the_task_follows_from_the_architecture_of_the_base(
    world: Path, tmp_path: Path, config: dict[str, Any], task: str | None
) -> None:
    base = shutil.copytree(world / "base", tmp_path / "base")
    known = json.loads((base / "config.json").read_text("utf-8"))
    tiny.write_json(base / "config.json", known | config)

    merging.build(tmp_path / "out", base, terms(world, one=1.0), artifact=adapter())

    written = json.loads((tmp_path / "out/adapter_config.json").read_text("utf-8"))
    assert written["task_type"] == task
