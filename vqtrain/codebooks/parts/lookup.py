"""What codebooks check before they look ids up."""

from jaxtyping import Int64, Shaped
from torch import Tensor

from vqtrain.codebooks.base import Codebook
from vqtrain.errors import ConfigError
from vqtrain.token_ids import as_token_ids


def ids_of(
    token_ids: Shaped[Tensor, "b k *tokens"], codebook: Codebook
) -> Int64[Tensor, "b k *tokens"]:
    """Take integers of any width as ids of a codebook.

    Raises:
        ConfigError: If their shape does not fit, they are not integers, or the codebook does not
            have one of them.
    """
    k, grids, shape = codebook.num_codebooks, codebook.token_grids, list(token_ids.shape)
    tokens = list(codebook.tokens(grids[-1])) if grids else shape[2:]
    if len(shape) < 2 or not codebook.takes(shape[1]) or shape[2:] != tokens:
        words = ", ".join(map(str, [k, *tokens])) if grids else f"{k}, *tokens"
        raise ConfigError(f"token ids of this codebook must be [b, {words}], got {shape}")
    return as_token_ids(token_ids, codebook.size)


def no_ids(kind: object, instead: str | None = None) -> ConfigError:
    """Say that a codebook has no ids, and what to use instead.

    Args:
        kind: Its word.
        instead: What to use; None for what there is in Python.
    """
    instead = instead or "use latents(images) and quantize(latents), or another codebook"
    return ConfigError(f"codebook={kind} is continuous, so there are no token ids: {instead}")
