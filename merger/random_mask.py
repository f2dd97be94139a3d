"""Random masks that depend on nothing but a seed, an operand's digest and a tensor's name.

A mask says of every element of a tensor whether it is kept. To the bit:

1.  key. SHA-256 of the canonical JSON (RFC 8785) of

        {"digest": "sha256:<hex>", "seed": <whole number>, "tensor": "<name in the base>"}

    `digest` being that of the term's operand. The first 16 hexadecimal digits of the SHA-256, read
    as one number, are the key's word 0, the next 16 are its word 1.
2.  generator. Philox4x64-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3").
    Call number b = 0, 1, 2 … has the counter words (b + 1, 0, 0, 0), as in the stream of
    `numpy.random.Philox(key=[word 0, word 1])`, and gives four 64-bit words.
3.  words. Each 64-bit word gives two of 32 bits, the low half first; so element i, counted from 0
    through the flat tensor (last dimension fastest), has the word (i mod 8) of call ⌊i / 8⌋.
4.  choice. An element of keep probability p is kept if its word, as a whole number, is less than
    p·2³² in binary64, rounded to a whole number, half to even. p = 1 keeps every element.

So a probability is a multiple of 2⁻³². The mask of a block needs no other block; it is the same
under another catalog name, weight or neighbour, in another shard or order, with any number of
threads, in every method, and on every device, because it is made on the CPU.
Knows no tensor's values and no method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.canonical import digest

_ELEMENTS_OF_A_CALL = 8
_RANGE = 2.0**32

Mask = npt.NDArray[np.bool_]
Probability = float | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RandomMask:
    """The random words of one tensor of one operand; `key` are the two words of the key."""

    key: tuple[int, int]

    def kept(self, probability: Probability, start: int, stop: int) -> Mask:
        """Return which of the elements from `start` to `stop` (exclusive) are kept, (n,).

        `probability` in [0, 1] is one number, or one per element, (n,).
        """
        thresholds = np.rint(np.multiply(probability, _RANGE))
        words = self.words(start, stop)
        kept: Mask
        if np.ndim(thresholds) == 0 and thresholds < _RANGE:
            kept = words < np.uint32(thresholds)
        else:
            # 2**32, which keeps all, does not fit 32 bits.
            kept = words < thresholds.astype(np.uint64)
        return kept

    def words(self, start: int, stop: int) -> npt.NDArray[np.uint32]:
        """Return the 32-bit words of the elements from `start` to `stop` (exclusive), (n,)."""
        call, skipped = divmod(start, _ELEMENTS_OF_A_CALL)
        # numpy raises the counter before each call.
        generator = np.random.Philox(key=np.array(self.key, np.uint64), counter=call)
        raw = generator.random_raw(-(-(skipped + stop - start) // 2))
        halves: npt.NDArray[np.uint32] = raw.astype("<u8", copy=False).view("<u4")
        return halves[skipped : skipped + stop - start]


def random_mask(seed: int, operand: str, tensor: str) -> RandomMask:
    """Return the random mask of a tensor for the operand with this digest."""
    name = digest({"seed": seed, "digest": operand, "tensor": tensor})
    digits = name.removeprefix("sha256:")
    return RandomMask((int(digits[:16], 16), int(digits[16:32], 16)))
