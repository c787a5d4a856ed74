"""What codebooks of signs share: their sizes and the options of their entropies."""

from typing import Annotated

from vqtrain.codebooks.parts.bits import MAX_BITS
from vqtrain.errors import ConfigError
from vqtrain.ranges import at_least, at_most

# The entropy of a group goes over 2^bits codes.
GroupBits = Annotated[int, at_least(1), at_most(20)]


def bits_of(size: int) -> int:
    """Return the bits of a size that is a power of two, or name the nearest ones.

    Example:
        >>> bits_of(1024)
        10
    """
    bits = max(1, size).bit_length() - 1
    if not 2 <= size <= 2**MAX_BITS:
        raise ConfigError(f"size must be a power of two from 2 to 2^{MAX_BITS}, got {size}")
    if size != 2**bits:
        raise ConfigError(
            f"size must be a power of two, got {size}: nearest are {2**bits} and {2 ** (bits + 1)}"
        )
    return bits
