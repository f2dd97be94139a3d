"""Make tests/reference/mergekit.json: what mergekit 0.1.5 makes of the models of `inputs`.

Run in an environment of its own, because mergekit pins its own versions:

    python -m venv .venv-mergekit
    .venv-mergekit/bin/pip install torch==2.13.0 mergekit==0.1.5
    PYTHONPATH=. .venv-mergekit/bin/python tests/reference/make_mergekit.py

Tensors of `CASES` are merged by mergekit's own `merge_tensors`. Where a method draws at random, the
draw is replaced by the masks of masks.json (see make_masks.py), so that the arithmetic around it
can be compared. How a case reads in our parameters stands in tests/conformance.py. Every file of
tests/examples/mergekit/valid is a case too, merged by `run_merge` from models on disk to a model on
disk.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods import get
from mergekit.merge_methods.api import merge_tensors
from mergekit.merge_methods.generalized_task_arithmetic import (
    ConsensusMethod,
    GeneralizedTaskArithmeticMerge,
)
from mergekit.options import MergeOptions
from mergekit.sparsify import SparsificationMethod
from tokenizers import Tokenizer

from tests import tiny
from tests.reference import inputs

FILES = Path(__file__).resolve().parents[1] / "examples/mergekit/valid"
BY_COUNT = GeneralizedTaskArithmeticMerge(
    consensus_method=ConsensusMethod.count,
    sparsification_method=SparsificationMethod.magnitude,
    default_normalize=False,
    default_rescale=False,
    method_name="ties_by_count",
    method_pretty_name=None,
    method_reference_url=None,
)
UNEVEN = [1.0, 2.0, 0.5]
SIGNED = [1.0, -0.5, 0.3]
ONES = [1.0, 1.0, 1.0]
PAIR = [1.0, 3.0]


def case(
    name: str,
    method: str,
    weights: list[float] | None,
    *,
    has_base: bool = True,
    mask: str | None = None,
    normed: bool = False,
    **parameters: Any,
) -> dict[str, Any]:
    """Return one case; as many models take part as there are weights (all three without).

    `normed` models have tensors of norm 1.
    """
    return {
        "name": name,
        "method": method,
        "weights": weights,
        "has_base": has_base,
        "mask": mask,
        "normed": normed,
        "parameters": {key.rstrip("_"): value for key, value in parameters.items()},
    }


CASES = [
    case("linear", "linear", UNEVEN, has_base=False),
    case("slerp, t 0.3", "slerp", [], t=0.3),
    case("slerp, t 0", "slerp", [], t=0.0),
    case("nuslerp, whole tensors", "nuslerp", PAIR, has_base=False),
    case("nuslerp, rows", "nuslerp", PAIR, has_base=False, nuslerp_flatten=False),
    case(
        "nuslerp, columns",
        "nuslerp",
        PAIR,
        has_base=False,
        nuslerp_flatten=False,
        nuslerp_row_wise=True,
    ),
    case("nuslerp of task vectors", "nuslerp", PAIR),
    case("nuslerp of task vectors, rows", "nuslerp", PAIR, nuslerp_flatten=False),
    case(
        "nuslerp of task vectors, columns",
        "nuslerp",
        PAIR,
        nuslerp_flatten=False,
        nuslerp_row_wise=True,
    ),
    case("multislerp of two norms of 1", "multislerp", [1.0, 1.0], has_base=False, normed=True),
    case("multislerp", "multislerp", UNEVEN, has_base=False),
    case("multislerp of task vectors", "multislerp", UNEVEN),
    case("karcher", "karcher", None, has_base=False),
    case("karcher, 100 steps to 1e-6", "karcher", None, has_base=False, max_iter=100, tol=1e-6),
    case("task_arithmetic, a negative weight", "task_arithmetic", SIGNED, lambda_=0.7),
    case("task_arithmetic, normalised", "task_arithmetic", UNEVEN, normalize=True),
    case("ties, defaults", "ties", UNEVEN),
    case("ties, density 0.4", "ties", UNEVEN, density=0.4),
    case("ties, density 0.25, equal weights", "ties", ONES, density=0.25),
    case("ties, equal weights", "ties", ONES),
    case("ties, density 0.6, lambda 1.1", "ties", UNEVEN, density=0.6, lambda_=1.1),
    case("ties, sum", "ties", SIGNED, density=0.4, normalize=False, lambda_=0.9),
    case("ties, signs by count", "ties_by_count", SIGNED, density=0.5, normalize=False),
    case("ties, one model of weight -1", "ties", [-1.0]),
    case("ties, rescale to the L1 norm", "ties", ONES, density=0.4, rescale=True),
    case("dare_linear, mask given", "dare_linear", UNEVEN, mask="0.4", density=0.4, rescale=False),
    case("dare_ties, mask given", "dare_ties", UNEVEN, mask="0.4", density=0.4, rescale=False),
    case("dare_linear, mask given, rescale", "dare_linear", UNEVEN, mask="0.4", density=0.4),
    case("dare_ties, mask given, rescale", "dare_ties", UNEVEN, mask="0.4", density=0.4),
    case(
        "della, mask given",
        "della",
        UNEVEN,
        mask="0.4 by rank",
        density=0.4,
        epsilon=0.1,
        rescale=False,
    ),
    case(
        "della_linear, mask given",
        "della_linear",
        UNEVEN,
        mask="0.4 by rank",
        density=0.4,
        epsilon=0.1,
        rescale=False,
    ),
    case(
        "della, mask given, rescale", "della", UNEVEN, mask="0.4 by rank", density=0.4, epsilon=0.1
    ),
    case("breadcrumbs", "breadcrumbs", SIGNED, density=0.5, gamma=0.1),
    case("breadcrumbs, outliers share 0.01", "breadcrumbs", SIGNED, density=0.9, gamma=0.01),
    case("breadcrumbs, lambda 0.7", "breadcrumbs", SIGNED, density=0.5, gamma=0.1, lambda_=0.7),
    case("breadcrumbs, normalised", "breadcrumbs", UNEVEN, density=0.9, gamma=0.05, normalize=True),
    case("breadcrumbs_ties", "breadcrumbs_ties", UNEVEN, density=0.5, gamma=0.1),
    case("breadcrumbs_ties, a negative weight", "breadcrumbs_ties", SIGNED, density=0.5, gamma=0.1),
    case("model_stock", "model_stock", None),
    case("model_stock, rows", "model_stock", None, filter_wise=True),
    case("sce", "sce", None),
    case("sce, half selected", "sce", None, select_topk=0.5),
]


def main() -> None:
    """Write the reference beside this script."""
    versions = {name: metadata.version(name) for name in ("mergekit", "torch", "transformers")}
    path = Path(__file__).resolve()
    masks = json.loads(path.with_name("masks.json").read_text("utf-8"))
    cases = [{**one, "expected": _merge(one, masks)} for one in CASES]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _write_models(Path("models"))
        cases += [_build(file) for file in sorted(FILES.glob("*.yaml"))]
    inputs.write(path.with_name("mergekit.json"), versions, cases)


def _merge(one: dict[str, Any], masks: dict[str, Any]) -> dict[str, Any]:
    base, models = inputs.base(), inputs.models()
    if one["weights"] is not None:
        # slerp has one model beside the base and no weights.
        models = models[: len(one["weights"]) or 1]
    if one["normed"]:
        models = [inputs.normed(model) for model in models]
    method = BY_COUNT if one["method"] == "ties_by_count" else get(one["method"])
    parameters = dict(one["parameters"])
    if one["weights"]:
        parameters["weight"] = one["weights"]
    expected = {}
    for name in inputs.SHAPES:
        given = [torch.from_numpy(model[name]) for model in models]
        if one["has_base"]:
            given = [torch.from_numpy(base[name]), *given]
        with _drawing(masks[one["mask"]][name] if one["mask"] else []):
            merged = merge_tensors(
                given, method, parameters=parameters, base_index=0 if one["has_base"] else None
            )
        expected[name] = merged.numpy()
    return expected


@contextmanager
def _drawing(masks: list[list[int]]) -> Iterator[None]:
    """Let the next draws be these masks, one per model."""
    left = iter(masks)

    def draw(probabilities: torch.Tensor) -> torch.Tensor:
        return torch.tensor(next(left), dtype=torch.float32).reshape(probabilities.shape)

    with mock.patch("torch.bernoulli", draw) if masks else nullcontext():
        yield
    assert not list(left)


def _write_models(folder: Path) -> None:
    for name in inputs.LLAMAS:
        (folder / name).mkdir(parents=True)
        tiny.write_safetensors(folder / name / "model.safetensors", inputs.llama(name))
        for file, data in inputs.llama_files(name).items():
            tiny.write_json(folder / name / file, data)
    config, factors = inputs.lora()
    (folder / "style").mkdir()
    tiny.write_safetensors(folder / "style/adapter_model.safetensors", factors)
    tiny.write_json(folder / "style/adapter_config.json", config)


def _build(file: Path) -> dict[str, Any]:
    config = MergeConfiguration.model_validate(yaml.safe_load(file.read_text("utf-8")))
    options = MergeOptions(
        copy_tokenizer=False, write_model_card=False, lora_merge_cache="cache", quiet=True
    )
    out = Path(file.stem)
    run_merge(config, str(out), options)
    one: dict[str, Any] = {"name": file.name, "expected": tiny.read_tensors(out)}
    if "union" in file.stem:
        one["tokens"] = Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab()
    return one


if __name__ == "__main__":
    main()
