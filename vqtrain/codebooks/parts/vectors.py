"""Between grids of latents and flat lists of vectors, and gradients past what has none."""

from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

# Keeps the directions of vectors of length zero finite.
EPSILON = 1e-6


def to_vectors(z: Float[Tensor, "b c *grid"]) -> Float[Tensor, "n c"]:
    """List the vectors of all grid positions, image by image, row by row."""
    return rearrange(z, "b c ... -> (b ...) c")


def to_grid(
    vectors: Float[Tensor, "n c"], token_ids: Int64[Tensor, " b *grid"]
) -> Float[Tensor, "b c *grid"]:
    """Put a flat list of vectors back on the grid that ``token_ids`` has."""
    on_grid = vectors.reshape(*token_ids.shape, vectors.shape[-1])
    return rearrange(on_grid, "b ... c -> b c ...")


def straight_through(
    z: Float[Tensor, "*shape"], z_q: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return ``z_q`` to the last bit, with the gradient of ``z``.

    The usual ``z + (z_q - z).detach()`` rounds, so that what the decoder was trained on is not
    what it gets from looking ids up; here the term that carries the gradient is exactly zero.

    References:
        Bengio et al. 2013, arXiv:1308.3432. Deviation: none but the order of the sum.
    """
    return z_q.detach() + (z - z.detach())


def rotation(
    z: Float[Tensor, "b c *grid"], z_q: Float[Tensor, "b c *grid"]
) -> Float[Tensor, "b c *grid"]:
    """Return ``z_q`` to the last bit, with the gradient of turning and stretching ``z`` to it.

    The rotation and the stretch that take each vector to its code are held constant. So gradients
    of vectors with one code differ, by how each lies to the code.

    Args:
        z: Latents; vectors are along the second axis.
        z_q: Their codes.

    References:
        Fifty et al. 2024, arXiv:2410.06424, section 4.2. Deviation: none but the exact value.
    """
    start, end = z.detach(), z_q.detach()
    lengths = [v.norm(dim=1, keepdim=True).clamp(min=EPSILON) for v in (start, end)]
    u, q = start / lengths[0], end / lengths[1]
    middle = u + q
    middle = middle / middle.norm(dim=1, keepdim=True).clamp(min=EPSILON)
    along_middle = (z * middle).sum(1, keepdim=True)
    along_u = (z * u).sum(1, keepdim=True)
    turned = z - 2 * middle * along_middle + 2 * q * along_u
    return straight_through(turned * (lengths[1] / lengths[0]), z_q)


# How gradients pass a lookup, by the word in the configuration.
GRADIENTS = {"straight_through": straight_through, "rotation": rotation}
