"""Whether the modules of a run take samples of its sizes, and fit each other."""

from collections.abc import Sequence

import torch

from vqtrain.app.parts.own import refuse_own
from vqtrain.data.loading.buckets import bucket_sizes
from vqtrain.data.settings.image import ImageData
from vqtrain.discriminators.base import Discriminator
from vqtrain.errors import ConfigError
from vqtrain.evaluation.cost import without_values
from vqtrain.shapes import by
from vqtrain.tokenizer.model import Tokenizer


def check_shapes(tokenizer: Tokenizer, size: Sequence[int], where: str) -> None:
    """Send one sample of the run's size through, so that modules that do not fit are found early.

    It is sent through modules without values, which costs no time and no memory, whatever the size.
    A network that looks at values gets a real sample.

    Args:
        tokenizer: The tokenizer of the run.
        size: Of the axes of a sample.
        where: What sets the size, for messages.

    Raises:
        ConfigError: If the encoder or the codebook does not take that size, or if the modules do
            not fit each other.
    """
    try:
        tokenizer.token_shape(*size)
        grid = tokenizer.encoder.grid(size)
        tokenizer.decoder.size(grid)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    shape = (1, tokenizer.channels, *size)
    try:
        try:
            latents, decoded = shapes_through(without_values(tokenizer), shape)
        except RuntimeError:
            latents, decoded = shapes_through(tokenizer, shape)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"encoder, codebook and decoder do not fit: {reason}") from error
    except Exception as error:
        for name, specification in tokenizer.specification.items():
            refuse_own(str(specification["kind"]), getattr(tokenizer, name), error, where=name)
        raise
    if latents[2:] != grid or decoded != shape:
        raise ConfigError(
            f"encoder and decoder do not fit: for a sample of {list(shape)} the encoder returns a "
            f"grid of {by(latents[2:])} and declares {by(grid)}, and the decoder returns a sample "
            f"of {list(decoded)}"
        )


def check_buckets(
    tokenizer: Tokenizer, discriminator: Discriminator | None, data: ImageData
) -> None:
    """Refuse sizes that one of the networks does not take.

    Raises:
        ConfigError: If there is one.
    """
    for size in bucket_sizes(data.image_size, tokenizer.unit):
        check_shapes(tokenizer, size, "data.aspect=buckets")
        if discriminator is not None and not takes(discriminator, data.channels, size):
            hint = discriminator.size_hint and f"; {discriminator.size_hint}"
            raise ConfigError(
                f"data.aspect=buckets: images of {by(size)} px do not fit this discriminator{hint}"
            )


@torch.no_grad()
def takes(discriminator: Discriminator, channels: int, size: Sequence[int]) -> bool:
    """Say whether a discriminator takes samples of a size."""
    try:
        discriminator(torch.zeros(discriminator.least_batch_size, channels, *size))
    except (RuntimeError, ValueError):  # torch's layers raise either, ours a ConfigError
        return False
    return True


@torch.no_grad()
def shapes_through(
    tokenizer: Tokenizer, shape: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of the latents of a sample, and of what is decoded from such a grid."""
    tokenizer.eval()
    try:
        sample = torch.zeros(tuple(shape), device=tokenizer.device)
        latents = tokenizer.project_in(tokenizer.encoder(sample))
        z_q = latents.new_zeros(len(sample), tokenizer.codebook.dim, *latents.shape[2:])
        decoded = tokenizer.decode_latents(z_q)
    finally:
        tokenizer.train()
    return tuple(latents.shape), tuple(decoded.shape)
