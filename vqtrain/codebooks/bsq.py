"""Binary spherical quantization: latents on the unit sphere, and the signs of their channels."""

from typing import final

from vqtrain.codebooks.parts.binary import SignCodebook


@final
class BSQ(SignCodebook):
    """Scales each vector to length one and replaces it by the nearest corner of a cube.

    The cube is in the unit sphere: a corner is a sign for each channel, divided by the root of
    their number. Since vector and corner are on the sphere, the error is bounded, also without a
    commitment.

    References:
        Zhao et al. 2024, arXiv:2406.07548, section 3. Deviation: bit 0 is the first channel, the
        authors' code begins with the highest.
    """

    on_sphere = True
