"""Make tests/reference/papers.json: TIES and DARE by their papers' definitions, in float64.

    PYTHONPATH=. python tests/reference/make_papers.py

The authors' code is in no package registry. TIES is written from Yadav et al. 2023
(arXiv:2306.01708, algorithm 1) and from what the behaviour of their code is known to add to it: the
smallest kept magnitude is the (n − ⌊n·k⌋)-th smallest, so ⌊n·k⌋ + 1 elements are kept; a sum of
zero takes the sign of the sum of all signs. DARE is written from Yu et al. 2024 (arXiv:2311.03099,
equations 2 and 3), with the masks of masks.json. No line is theirs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.reference import inputs

Vector = npt.NDArray[np.float64]


def trimmed(vector: Vector, keep: float) -> Vector:
    """Keep what reaches the (n − ⌊n·keep⌋)-th smallest magnitude of the whole vector."""
    magnitudes = np.sort(np.abs(vector))
    least = magnitudes[len(vector) - int(len(vector) * keep) - 1]
    return np.where(np.abs(vector) >= least, vector, 0.0)


def elected(vectors: list[Vector]) -> Vector:
    """Sign of the summed mass per element; where it is zero, that of the majority of signs."""
    signs = np.sign(np.sum(vectors, axis=0))
    return np.where(signs == 0, np.sign(np.sum(signs)), signs)


def disjoint_mean(vectors: list[Vector], signs: Vector) -> Vector:
    """Mean over the vectors that have the elected sign; zero where none has."""
    agrees = [np.sign(vector) == signs for vector in vectors]
    total = np.sum([np.where(one, v, 0.0) for one, v in zip(agrees, vectors, strict=True)], axis=0)
    merged: Vector = total / np.maximum(np.sum(agrees, axis=0), 1)
    return merged


def ties(name: str, keep: float, scale: float) -> dict[str, Any]:
    """Return base + scale · the merged task vector, one cut over all tensors in order of names."""
    base, names = inputs.base(), sorted(inputs.SHAPES)
    flat = [
        np.concatenate([np.float64(model[key] - base[key]).ravel() for key in names])
        for model in inputs.models()
    ]
    kept = [trimmed(vector, keep) for vector in flat]
    merged = scale * disjoint_mean(kept, elected(kept))
    ends = np.cumsum([base[key].size for key in names])[:-1]
    expected = {
        key: (base[key] + part.reshape(base[key].shape)).astype(np.float32)
        for key, part in zip(names, np.split(merged, ends), strict=True)
    }
    return {"name": name, "expected": expected}


def dare(name: str, drop: float, masks: dict[str, list[list[int]]]) -> dict[str, Any]:
    """Return base + the sum of the task vectors, each dropped and rescaled."""
    base, models = inputs.base(), inputs.models()
    expected = {}
    for key, array in base.items():
        total = np.float64(array)
        for model, mask in zip(models, masks[key], strict=True):
            kept = np.reshape(mask, array.shape)
            total = total + kept * np.float64(model[key] - array) / (1 - drop)
        expected[key] = total.astype(np.float32)
    return {"name": name, "expected": expected}


def main() -> None:
    """Write the reference beside this script."""
    path = Path(__file__)
    masks = json.loads(path.with_name("masks.json").read_text("utf-8"))["0.4"]
    cases = [
        ties("TIES, keep 20 %, lambda 1", 0.2, 1.0),
        ties("TIES, keep 50 %, lambda 0.4", 0.5, 0.4),
        # One term's sign decides alone where the others are trimmed away.
        ties("TIES, keep 5 %, lambda 1", 0.05, 1.0),
        dare("DARE, drop 60 %, mask given", 0.6, masks),
    ]
    inputs.write(path.with_name("papers.json"), {"numpy": np.__version__}, cases)


if __name__ == "__main__":
    main()
