"""Make tests/reference/mergekit_models.json: what mergekit 0.1.5 builds from whole YAML files.

Run in the environment of make_mergekit_tensors.py. Every file of tests/examples/mergekit/valid is merged by
mergekit's own `run_merge`, from models on disk to a model on disk.
"""

from __future__ import annotations

import os
import tempfile
from importlib import metadata
from pathlib import Path

import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

from tests import tiny
from tests.reference import inputs

FILES = Path(__file__).parents[1] / "examples/mergekit/valid"


def main() -> None:
    """Write the reference beside this script."""
    path, files = Path(__file__).resolve(), sorted(FILES.resolve().glob("*.yaml"))
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _write_models(Path("models"))
        for file in files:
            config = MergeConfiguration.model_validate(yaml.safe_load(file.read_text("utf-8")))
            options = MergeOptions(
                copy_tokenizer=False, write_model_card=False, lora_merge_cache="cache", quiet=True
            )
            run_merge(config, file.stem, options)
            cases.append({"name": file.stem, "expected": tiny.read_tensors(Path(file.stem))})
    versions = {name: metadata.version(name) for name in ("mergekit", "torch", "transformers")}
    inputs.write(path.with_name("mergekit_models.json"), versions, cases)


def _write_models(folder: Path) -> None:
    for name in ("tiny", "math", "law", "code"):
        (folder / name).mkdir(parents=True)
        tiny.write_safetensors(folder / name / "model.safetensors", inputs.llama(name))
        tiny.write_json(folder / name / "config.json", inputs.llama_config())
    config, factors = inputs.lora()
    (folder / "style").mkdir()
    tiny.write_safetensors(folder / "style/adapter_model.safetensors", factors)
    tiny.write_json(folder / "style/adapter_config.json", config)


if __name__ == "__main__":
    main()
