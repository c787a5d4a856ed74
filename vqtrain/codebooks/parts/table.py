"""What codebooks with a table of codes share: the lookup, and how a code is chosen."""

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from vqtrain.codebooks.base import Codebook
from vqtrain.codebooks.parts.lookup import ids_of
from vqtrain.codebooks.parts.search import best, nearest, nearness
from vqtrain.codebooks.parts.vectors import to_grid
from vqtrain.ops.noise import SampleNoise

# Arguments of a ``vq`` that does nothing in training but what the optimizer does.
PLAIN = {
    "l2_normalize": False,
    "kmeans_iterations": 0,
    "decay": 0.95,
    "restart_below": 0.0,
    "entropy_weight": 0.0,
    "entropy_temperature": 0.01,
    "sampling_temperature": 0.0,
}


# Times the length of the longest code: as far is a code that no latent is to choose.
FAR = 1e3


class TableCodebook(Codebook):
    """A codebook whose ids count the rows of a table.

    Attributes:
        vectors: The table that is stored, a parameter or a buffer.
    """

    num_codebooks = 1
    id_order = "row of the table"
    vectors: Tensor

    def table(self) -> Float[Tensor, "k d"]:
        """Return the codes as they are compared and passed on."""
        return self.vectors

    def stored_tables(self) -> list[Float[Tensor, "k d"]]:
        """Return the table."""
        return [self.vectors]

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Look rows of the table up."""
        ids = ids_of(token_ids, self)[:, 0]
        return to_grid(self.table()[ids.flatten()], ids)


def with_far_codes(codes: Float[Tensor, "k d"], size: int) -> Float[Tensor, "size d"]:
    """Return a table that begins with some codes, and goes on with codes that no latent chooses.

    Copies of the given codes would not do, as matrix products may round those differently.
    """
    length = FAR * codes.norm(dim=1).max().clamp(min=1)
    far = (length * codes.shape[1] ** -0.5).expand(size - len(codes), codes.shape[1])
    return torch.cat([codes, far])


def selection_rule(l2_normalize: bool) -> str:
    """Say how a table's codes are chosen."""
    return "largest cosine similarity" if l2_normalize else "smallest Euclidean distance"


def choose(
    z: Float[Tensor, "n d"],
    codes: Float[Tensor, "k d"],
    temperature: float,
    noise: SampleNoise | None,
) -> Int64[Tensor, " n"]:
    """Choose the nearest code of each vector, or sample one.

    Args:
        z: The vectors.
        codes: The codes.
        temperature: T of the softmax(-d^2 / (T dim)) that codes are sampled from.
        noise: Of the samples; None for the nearest code.
    """
    if noise is None:
        return nearest(z, codes)
    scale = 2 / (temperature * z.shape[1])
    return best(
        z * scale,
        codes,
        nearness(codes) * scale,
        lambda scores, start, _: scores.add_(noise.gumbel(scores, start)),
    )


def dead_codes(
    average_counts: Float[Tensor, " k"], restart_below: float, available: int
) -> tuple[Int64[Tensor, " m"], Bool[Tensor, " m"]]:
    """List the codes to restart, without waiting for the device to count them.

    Args:
        average_counts: How often each code wins.
        restart_below: The dead-code threshold, as a share of the mean count.
        available: How many vectors there are for them; further codes wait for the next step.

    Returns:
        Ids of the dead codes in their order, filled up by others, and which of them are dead.
    """
    is_dead = average_counts < restart_below * average_counts.mean()
    codes = is_dead.byte().argsort(descending=True, stable=True)[:available]
    return codes, is_dead[codes]
