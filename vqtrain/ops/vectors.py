"""Between grids of latents and flat lists of vectors."""

from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor


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
