"""PEFT's way to a merged model: several adapters into one, folded into the base, saved.

    python -m benchmarks.peft_merge BASE OUTPUT METHOD ADAPTER…

METHOD is a combination type of `add_weighted_adapter`. PEFT merges the factors A and B each on its
own, so its numbers are others than ours; what it costs can be compared.
"""

from __future__ import annotations

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main() -> None:
    """Merge what the command line names; everything in bfloat16."""
    base, output, method, *adapters = sys.argv[1:]
    names = [f"a{number}" for number in range(len(adapters))]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(model, adapters[0], adapter_name=names[0])
    for name, folder in zip(names[1:], adapters[1:], strict=True):
        model.load_adapter(folder, adapter_name=name)
    density = {"density": 0.2} if method == "ties" else {}
    weights = [1.0] * len(names)
    model.add_weighted_adapter(names, weights, "merged", combination_type=method, **density)
    model.set_adapter("merged")
    model.merge_and_unload().save_pretrained(output)


if __name__ == "__main__":
    main()
