"""A permutation of 0 .. n-1 as a function, which needs no memory and is the same for ever.

A Feistel network permutes the numbers of 2k bits; numbers that fall outside n are sent round again until they fall
inside ("cycle walking": Black and Rogaway, Ciphers with arbitrary finite domains, 2002). numpy's shuffles would hold n
numbers in every rank, and their streams may change between versions, which a checkpoint cannot bear.
"""

from __future__ import annotations

import hashlib

_ROUNDS = 4


def keyed_number(key: bytes, value: int) -> int:
    """64 bits that depend on both, as good as random."""
    return int.from_bytes(hashlib.blake2b(value.to_bytes(8), key=key, digest_size=8).digest())


def permuted(index: int, n: int, key: bytes) -> int:
    """Where the permutation that belongs to `key` (at most 64 bytes) sends `index`, 0 <= index < n."""
    half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
    value = _feistel(index, half_bits, key)
    while value >= n:
        value = _feistel(value, half_bits, key)
    return value


def _feistel(value: int, half_bits: int, key: bytes) -> int:
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for number in range(_ROUNDS):
        left, right = right, left ^ (keyed_number(key, number << 56 | right) & mask)
    return left << half_bits | right
