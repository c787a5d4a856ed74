"""Randomness that is never stored: every draw is a function of the seed and the position."""

import hashlib

import torch


def seed_for(*parts: int | str) -> int:
    """Mix numbers and words into one seed, the same on every machine and in every process.

    Args:
        parts: What the draw depends on, such as the run's seed, the step and the rank.

    Returns:
        An integer in [0, 2^63).

    Example:
        >>> seed_for(0, 1) == seed_for(0, 1), seed_for(0, 1) == seed_for(1, 0)
        (True, False)
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def seed_torch(*parts: int | str) -> None:
    """Set torch's global generators, on the CPU and on every GPU, from ``parts``."""
    torch.manual_seed(seed_for(*parts))
