"""DARE: drop at random, rescale what is left (Yu et al. 2024, "Language Models are Super Mario").

Pure function on a flat tensor (n,) in float32 or float64. Which elements are kept is decided
outside, by `merger.random_mask`. As in the paper and its code what is kept is divided by the
probability of keeping it, so the expectation of the result is τ for every tensor, however small.
mergekit instead multiplies by ‖τ‖₁ / ‖kept‖₁, which is biased and on tensors of a few elements,
as norms are, can be a thousandfold; masks of other programs cannot be reproduced here.
"""

from __future__ import annotations

import torch


def drop(
    tau: torch.Tensor, kept: torch.Tensor, probability: float | torch.Tensor, *, rescale: bool
) -> torch.Tensor:
    """Return τ where `kept` (n,) is true and zero elsewhere, times 1/p with `rescale`, (n,).

    p is one number in (0, 1] or one per element, (n,) in float64. In τ's dtype, not in place; 1/p
    is rounded once to that dtype, the product once. A p whose reciprocal that dtype does not hold
    keeps nothing (`random_mask` knows multiples of 2⁻³² only), so the factor stays finite.
    """
    factor = kept.view(torch.uint8).to(tau.dtype)  # from bool it would take ten times as long
    largest = torch.finfo(tau.dtype).max
    if rescale and isinstance(probability, torch.Tensor):
        factor *= probability.reciprocal().clamp(max=largest).to(tau.dtype)
    elif rescale:
        factor *= min(1.0 / probability, largest)
    return tau * factor
