"""Make tests/reference/masks.json: our random masks for the models of `inputs`, by their description.

    PYTHONPATH=. python tests/reference/make_masks.py      # in the project's own environment

Made by `philox`, which knows the description in merger/random_mask.py and none of its code.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from schemas.digest import hash_folder, tree_digest
from tests.conformance_builds import write_model
from tests.reference import inputs, philox

DENSITY, EPSILON, SEED = 0.4, 0.1, 0


def by_rank(tau: inputs.Array) -> list[float]:
    """Return DELLA's probabilities: by rank of magnitude in each row (Deep et al. 2024, eq. 3)."""
    rows = np.abs(np.atleast_2d(tau))
    ranks = rows.argsort(axis=1).argsort(axis=1) / (rows.shape[1] - 1)
    return [float(one) for one in (DENSITY - EPSILON + ranks * 2 * EPSILON).ravel()]


def main() -> None:
    """Write the masks beside this script."""
    base, models = inputs.base(), inputs.models()
    found: dict[str, dict[str, list[list[int]]]] = {"0.4": {}, "0.4 by rank": {}}
    with tempfile.TemporaryDirectory() as folder:
        digests = [
            tree_digest(hash_folder(write_model(Path(folder) / str(number), model)))
            for number, model in enumerate(models)
        ]
    for name in inputs.SHAPES:
        for masks in found.values():
            masks[name] = []
        for digest, model in zip(digests, models, strict=True):
            tau = model[name] - base[name]
            key = philox.key_of(SEED, digest, name)
            drawn = [philox.word(key, index) for index in range(tau.size)]
            for kind, shares in (("0.4", [DENSITY] * tau.size), ("0.4 by rank", by_rank(tau))):
                kept = [int(word < round(p * 2**32)) for word, p in zip(drawn, shares, strict=True)]
                found[kind][name].append(kept)
    path = Path(__file__).with_name("masks.json")
    path.write_text(json.dumps(found).replace("]], ", "]],\n") + "\n", "utf-8")


if __name__ == "__main__":
    main()
