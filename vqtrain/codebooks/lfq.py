"""Lookup-free quantization: the id is the signs of the channels, and entropies do the learning."""

from typing import final

from vqtrain.codebooks.parts.binary import SignCodebook


@final
class LFQ(SignCodebook):
    """Replaces each channel by its sign, -1 or 1.

    The entropy loss asks for a low per-sample entropy, and for a high codebook entropy over the
    vectors of all ranks.

    References:
        Yu et al. 2023, arXiv:2310.05737, section 3.1. Deviation: the entropy of each vector is
        computed bit by bit, which is exact.
    """

    on_sphere = False
