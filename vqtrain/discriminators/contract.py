"""A check of the contract of discriminators."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vqtrain.discriminators.base import Discriminator, FeatureDiscriminator
from vqtrain.errors import require
from vqtrain.layers.promises import check_gradients, repeatable, size_for


def check(
    discriminator: Discriminator, *, in_channels: int = 3, sample_size: Sequence[int] | None = None
) -> None:
    """Check that a discriminator keeps the promises of ``Discriminator``.

    Args:
        discriminator: As it is built.
        in_channels: Channels of a sample.
        sample_size: A size that it takes; None for a small one of as many axes as it declares.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    sample_size = size_for(discriminator) if sample_size is None else sample_size
    count = discriminator.least_batch_size
    require(count >= 1, f"least_batch_size must be at least 1, got {count}")
    with repeatable():
        for dtype in (torch.float32, torch.float64):
            samples = torch.rand(count, in_channels, *sample_size, dtype=dtype) * 2 - 1
            samples.requires_grad_()
            logits = discriminator.to(dtype).train()(samples)
            require(
                isinstance(logits, list) and len(logits) >= 1,
                f"forward must return a list of logits, got {type(logits).__name__}",
            )
            for each in logits:
                require(
                    tuple(each.shape[:2]) == (count, 1) and each.dtype == dtype,
                    f"logits must be {dtype} of shape [{count}, 1, ...], got {each.dtype} of shape "
                    f"{list(each.shape)}",
                )
            total: Tensor = torch.stack([each.square().mean() for each in logits]).sum()
            total.backward()  # type: ignore[no-untyped-call]  # torch's own
            gradient = samples.grad
            require(
                gradient is not None and bool((gradient != 0).any()),
                "the gradient must reach the samples, from which the generator learns",
            )
            if isinstance(discriminator, FeatureDiscriminator):
                _check_features(discriminator, samples.detach(), len(logits))
    check_gradients(discriminator)


def _check_features(discriminator: FeatureDiscriminator, samples: Tensor, count: int) -> None:
    found = discriminator.judge(samples).features
    require(
        len(found) == count and all(len(maps) >= 1 for maps in found),
        "judge must return a list of maps for each tensor of logits",
    )
    for each in (each for maps in found for each in maps):
        require(
            len(each) == len(samples) and each.dtype == samples.dtype,
            f"features must be {samples.dtype} of {len(samples)} samples, got {each.dtype} of "
            f"shape {list(each.shape)}",
        )
