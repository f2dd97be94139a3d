"""The same merges elsewhere: mergekit in an environment of its own, PEFT, the floor, cp.

mergekit runs as its users run it: YAML file, bfloat16 throughout (its arithmetic is cheaper for it
than in float32, which is what we compute in), adapters as `base+adapter`, which it folds into whole
models first; without the model card, which wants the network, and on all processors.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import schemas
from benchmarks import measure
from benchmarks.measure import Sample
from benchmarks.merges import Case, Inputs
from benchmarks.session import ROOT, say

MERGEKIT = "mergekit==0.1.5"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": ""}


@dataclass(frozen=True, slots=True)
class Mergekit:
    """mergekit's program."""

    program: Path

    def merge(self, inputs: Inputs, case: Case, folder: Path) -> Sample:
        """Merge into an empty folder; the result is removed again."""
        config, output, cache = folder / "merge.json", folder / "merged", folder / "folded"
        config.write_text(json.dumps(mergekit_config(inputs, case)), "utf-8")  # JSON is YAML too
        options = ["--no-write-model-card", "--quiet", "--lora-merge-cache", str(cache)]
        if not (inputs.folders["base"] / "tokenizer.json").exists():
            options.append("--no-copy-tokenizer")
        command = [str(self.program), str(config), str(output), *options]
        sample, _ = measure.run(command, cwd=folder, env=_OFFLINE)
        size = float(sum(path.stat().st_size for path in output.iterdir()))
        shutil.rmtree(output)
        shutil.rmtree(cache, ignore_errors=True)
        return replace(sample, told={"artifact_bytes": size})


def mergekit(folder: Path) -> Mergekit:
    """Return mergekit, installed beside us the first time: its licence stays out of ours."""
    home = folder / "mergekit"
    program = home / "bin" / "mergekit-yaml"
    done = home / "installed"
    if not done.exists():
        say(f"installing {MERGEKIT} into {home}")
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        pinned = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, *pinned, "torch", MERGEKIT], check=True)
        # Once for nothing, so that no measured run compiles Python files.
        subprocess.run([program, "--help"], stdout=subprocess.DEVNULL, check=True)
        done.touch()
    return Mergekit(program)


def mergekit_config(inputs: Inputs, case: Case) -> dict[str, Any]:
    """Return mergekit's way to write a case: equal density, weights of 1, lambda 1."""
    base = str(inputs.folders["base"])
    defaults = schemas.methods()[case.method]["properties"]
    density = {"density": defaults["density"]["default"]} if "density" in defaults else {}
    models = []
    for name in case.terms:
        folder = inputs.folders[name]
        is_adapter = (folder / "adapter_config.json").exists()
        place = f"{base}+{folder}" if is_adapter else str(folder)
        models.append({"model": place, "parameters": {"weight": 1.0, **density}})
    config = {"merge_method": case.method, "models": models, "dtype": "bfloat16"}
    return config if case.method == "linear" else {**config, "base_model": base}


def peft(inputs: Inputs, case: Case, folder: Path) -> Sample:
    """Merge adapters with PEFT, TIES on their factors, fold the result in and save the model."""
    output = folder / "peft"
    paths = [inputs.folders["base"], output, case.method, *map(inputs.folders.get, case.terms)]
    command = [sys.executable, "-m", "benchmarks.peft_merge", *map(str, paths)]
    sample, _ = measure.run(command, cwd=ROOT, env={**_OFFLINE, "PYTHONPATH": str(ROOT)})
    shutil.rmtree(output)
    return sample


def floor(inputs: Inputs, case: Case, folder: Path) -> Sample:
    """Read the base and every operand once; hash and write as much as the base once."""
    output = folder / "floor"
    paths = [
        path
        for one in inputs.paths(case.terms)
        for path in sorted(one.iterdir())
        if path.suffix == ".safetensors"
    ]
    command = [sys.executable, "-m", "benchmarks.floor", *map(str, (output, *paths))]
    sample, told = measure.run(command, cwd=ROOT)
    output.unlink()
    return replace(sample, told=json.loads(told))


def cp(inputs: Inputs, folder: Path) -> Sample:
    """Copy the base's weights with cp."""
    output = folder / "copy"
    source = inputs.folders["base"] / "model.safetensors"
    sample, _ = measure.run(["cp", source, output], cwd=ROOT)
    output.unlink()
    return sample
