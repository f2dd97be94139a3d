"""Masks to the bit, against a Philox written here from the paper; rates; independence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merger.blocks import Block
from merger.kept_mask import KeptMask
from merger.random_mask import RandomMask, random_mask
from tests.reference.philox import WORD, key_of, philox, word

# Random123's known answers for philox4x64 with 10 rounds: counter, key, result.
KNOWN = [
    (
        [0, 0, 0, 0],
        [0, 0],
        [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B],
    ),
    (
        [WORD - 1] * 4,
        [WORD - 1] * 2,
        [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0],
    ),
    (
        [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89],
        [0x452821E638D01377, 0xBE5466CF34E90C6C],
        [0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_generator_gives_the_known_answers_of_random123(
    counter: list[int], key: list[int], expected: list[int]
) -> None:
    # numpy raises the counter by one before the first call.
    before = sum(word << (64 * place) for place, word in enumerate(counter)) - 1
    words = [(before >> (64 * place)) % WORD for place in range(4)]
    generator = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(words, np.uint64))

    assert philox(counter, key) == expected
    assert generator.random_raw(4).tolist() == expected


KEY = (0x0123456789ABCDEF, 0xFEDCBA9876543210)


@given(start=st.integers(0, 2**40), count=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_word_is_found_by_its_elements_index_alone(start: int, count: int) -> None:
    found = RandomMask(KEY).words(start, start + count)

    assert found.tolist() == [word(KEY, index) for index in range(start, start + count)]


def test_the_key_is_cut_from_the_sha256_of_canonical_json() -> None:
    operand = "sha256:" + "7" * 64

    found = random_mask(42, operand, "model.norm.weight")

    assert found.key == key_of(42, operand, "model.norm.weight")
    # Once and for all: `printf '{"digest":"sha256:7…7","seed":42,"tensor":"…"}' | sha256sum`.
    assert found.key == (0x518110E1583797FF, 0xB27BF57588E9EA2E)


def test_another_seed_operand_or_tensor_gives_another_mask() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    masks = [random_mask(0, one, "a"), random_mask(1, one, "a")]
    masks += [random_mask(0, two, "a"), random_mask(0, one, "b")]

    assert len({mask.words(0, 2).tobytes() for mask in masks}) == 4


@given(
    probability=st.floats(0, 1),
    places=st.lists(st.integers(0, 10_000), min_size=1, max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_an_element_is_kept_if_its_word_is_below_the_rounded_probability(
    probability: float, places: list[int]
) -> None:
    mask = RandomMask(KEY)
    # Python rounds half to even, and p·2³² is exact.
    threshold = round(probability * 2**32)

    for place in places:
        expected = [word(KEY, index) < threshold for index in range(place, place + 9)]
        assert mask.kept(probability, place, place + 9).tolist() == expected
        many = np.full(9, probability)
        assert mask.kept(many, place, place + 9).tolist() == expected


def test_the_ends_of_the_range_keep_nothing_and_all() -> None:
    # An element whose word is the largest there is would be lost to a comparison in 32 bits.
    mask = RandomMask(KEY)

    assert mask.kept(1.0, 0, 100_000).all()
    assert not mask.kept(0.0, 0, 100_000).any()
    assert not mask.kept(2.0**-34, 0, 100_000).any()
    assert mask.kept(np.array([1.0, 0.0, 1.0]), 5, 8).tolist() == [True, False, True]


@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.9])
def test_the_share_that_is_kept_is_the_probability(probability: float) -> None:
    count = 1 << 22
    deviation = math.sqrt(probability * (1 - probability) / count)

    share = random_mask(7, "sha256:" + "a" * 64, "w").kept(probability, 0, count).mean()

    assert abs(share - probability) < 5 * deviation


def test_neighbours_in_a_mask_and_masks_of_two_operands_are_independent() -> None:
    count, probability = 1 << 22, 0.5
    one = random_mask(7, "sha256:" + "a" * 64, "w").kept(probability, 0, count)
    two = random_mask(7, "sha256:" + "b" * 64, "w").kept(probability, 0, count)
    deviation = 0.5 / math.sqrt(count)

    for other in (two, np.roll(one, 1), np.roll(one, 8), np.roll(one, 1 << 17)):
        assert abs((one == other).mean() - 0.5) < 5 * deviation


def test_a_kept_mask_gives_the_same_elements_every_time() -> None:
    mask = random_mask(7, "sha256:" + "a" * 64, "w")
    first, second, last = Block(0, 91, 11), Block(91, 92, 11), Block(92, 93, 11)
    kept = KeptMask(mask, 0.3, (first, second, last))

    for block in (first, second, first, last, second, last):
        assert kept.kept(block).tolist() == mask.kept(0.3, block.start, block.stop).tolist()
