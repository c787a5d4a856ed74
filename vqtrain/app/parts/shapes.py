"""Whether the modules of a run take samples of its sizes, and fit each other."""

from collections.abc import Sequence

import torch

from vqtrain.app.parts.own import refuse_own
from vqtrain.data.loading.buckets import bucket_sizes
from vqtrain.data.settings.base import DataSettings
from vqtrain.data.settings.image import ImageData
from vqtrain.data.settings.video import VideoData
from vqtrain.discriminators.base import Discriminator
from vqtrain.errors import ConfigError
from vqtrain.evaluation.cost import without_values
from vqtrain.losses.parts.frames import seen_size
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
    tokenizer: Tokenizer, discriminator: Discriminator | None, data: DataSettings
) -> None:
    """Refuse sizes that samples have beside ``data.sample_size``, if a network does not take them.

    Raises:
        ConfigError: If there is one.
    """
    where, unit, sizes = "", "", list[tuple[int, ...]]()
    if isinstance(data, ImageData) and data.aspect == "buckets":
        where, unit = "data.aspect=buckets", " px"
        sizes += bucket_sizes(data.image_size, tokenizer.unit)
    elif isinstance(data, VideoData) and data.has_images:
        where = "images beside clips in data.train, as clips of one frame"
        sizes.append((1, *data.sample_size[1:]))
    for size in sizes:
        check_shapes(tokenizer, size, where)
        if discriminator is None:
            continue
        seen = seen_size(type(discriminator), size, where=where)
        if not takes(discriminator, data.channels, seen):
            hint = discriminator.size_hint and f"; {discriminator.size_hint}"
            what = f"{data.media.noun}s of {by(size)}{unit}"
            raise ConfigError(f"{where}: {what} do not fit this discriminator{hint}")


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
