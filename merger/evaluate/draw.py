"""Tokens drawn at random, by noise that depends on nothing but what is asked. Knows no suite.

The Gumbel-max trick: the largest of logit / temperature + g, where g = -ln(-ln u) for independent
uniform u, is a draw from softmax(logits / temperature). The noise of one token is made from seed,
prompt, number of the sample and number of the step, on the CPU: it is the same in every batch, in
every order and on every device. Of all ways to draw this one changes its mind least where logits
differ in their last bits, as they do between batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from schemas.canonical import digest


@dataclass(frozen=True, slots=True)
class Draw:
    """One sampled answer: a temperature above 0 and what names its noise."""

    temperature: float
    seed: int
    prompt: str
    sample: int

    def token(self, logits: torch.Tensor, step: int) -> int:
        """Return the token that is drawn at a step; logits [V] float32 -> float64 on the CPU."""
        scores = logits.double().cpu().numpy() / self.temperature + self.noise(len(logits), step)
        return int(scores.argmax())

    def noise(self, size: int, step: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return standard Gumbel noise, [V] float64.

        Philox4x64-10 under the first 128 bits of the SHA-256 of seed, prompt, sample and step; the
        upper 52 bits of each word, and a half, are u: neither 0 nor 1.
        """
        named = {"seed": self.seed, "prompt": self.prompt, "sample": self.sample, "step": step}
        digits = digest(named).removeprefix("sha256:")
        key = np.array([int(digits[:16], 16), int(digits[16:32], 16)], np.uint64)
        words = np.random.Philox(key=key).random_raw(size)
        uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        return -np.log(-np.log(uniform))
