"""A continuous tokenizer with the codebook of another one, which was trained on its latents."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor

from vqtrain.build import CONTEXT, kind_and_arguments
from vqtrain.errors import require
from vqtrain.ops.pixels import UINT8_RANGE
from vqtrain.tokenizer.model import Tokenizer

# The modules of a linear map of channels.
WEIGHT, BIAS = "weight", "bias"


def compose(original: Tokenizer, latent: Tokenizer) -> Tokenizer:
    """Put the codebook of a tokenizer of latents into the tokenizer that the latents are of.

    Encoding and decoding are then those of both, one after the other: all that is between the two
    are linear maps of the channels, which become one. Of a codebook that takes means and
    log-variances the means remain.

    Args:
        original: A continuous tokenizer.
        latent: A tokenizer of its latents as images of as many channels, with ``encoder=identity``,
            a decoder of the same resolution, and a ``pixel_range`` that holds them.

    Returns:
        The tokenizer of samples with ids, in eval mode; its decoder is ``rectified``.

    Raises:
        ConfigError: If the two do not fit each other.
    """
    continuous, dim = original.codebook, original.codebook.dim
    require(continuous.num_codebooks == 0, "the tokenizer has token ids already")
    require(
        latent.specification["encoder"]["kind"] == "identity",
        f"a codebook of latents must be trained with encoder=identity, got "
        f"{latent.specification['encoder']['kind']}",
    )
    require(
        latent.channels == dim,
        f"the codebook is of latents of {latent.channels} channels, and those of the tokenizer "
        f"have {dim}",
    )
    black, white = latent.pixel_range or UINT8_RANGE
    center, scale = (black + white) / 2, (white - black) / 2
    kind, arguments = kind_and_arguments("decoder", original.specification["decoder"])
    inner = {name: value for name, value in arguments.items() if name not in CONTEXT}
    word, own = kind_and_arguments("decoder", latent.specification["decoder"])
    rectifier = {name: value for name, value in own.items() if name not in CONTEXT}
    composed = Tokenizer(
        encoder=original.specification["encoder"],
        codebook=latent.specification["codebook"],
        decoder={
            "kind": "rectified",
            "arguments": {
                "out_channels": original.channels,
                "sample_size": arguments.get("sample_size"),
                "latent_channels": dim,
                "rectifier": {"kind": word, **rectifier},
                "inner": {"kind": kind, **inner},
            },
        },
        channels=original.channels,
        training=_summary(original),
        pixel_range=original.pixel_range,
    ).to(original.dtype)
    first, second = original.project_in, latent.project_in
    means = first.weight[:dim], _bias(first)[:dim]
    composed.load_weights(
        {
            **_under("encoder", original.encoder.state_dict()),
            **_under("codebook", latent.codebook.state_dict()),
            **_under("project_out", latent.project_out.state_dict()),
            **_under("decoder.rectifier", latent.decoder.state_dict()),
            **_under("decoder.inner", original.decoder.state_dict()),
            # Samples of the tokenizer of latents are (z - center) / scale.
            **_under("project_in", _joined(means, 1 / scale, -center / scale, second)),
            **_under("decoder.between", _joined(None, scale, center, original.project_out)),
        }
    )
    return composed.eval()


def swapped(original: Tokenizer, codebook: Mapping[str, object]) -> Tokenizer:
    """Put a codebook that has nothing to train in the place of the one of a continuous tokenizer.

    Args:
        original: A continuous tokenizer.
        codebook: ``{"kind": word, "arguments": {...}}`` of a codebook that takes what that of
            ``original`` takes, such as ``gaussian`` in place of ``kl``.

    Returns:
        The tokenizer with ids, in eval mode; all other weights are those of ``original``.

    Raises:
        ConfigError: If the codebook cannot be built, or takes something else.
    """
    require(original.codebook.num_codebooks == 0, "the tokenizer has token ids already")
    made = Tokenizer(
        encoder=original.specification["encoder"],
        codebook=codebook,
        decoder=original.specification["decoder"],
        channels=original.channels,
        training=_summary(original),
        pixel_range=original.pixel_range,
    ).to(original.dtype)
    channels = [(each.codebook.in_channels, each.codebook.dim) for each in (original, made)]
    require(
        channels[0] == channels[1],
        f"codebook={codebook['kind']} takes {channels[1][0]} channels and gives {channels[1][1]}, "
        f"that of the tokenizer takes {channels[0][0]} and gives {channels[0][1]}: they must be "
        "equal",
    )
    others = {k: v for k, v in original.state_dict().items() if not k.startswith("codebook.")}
    made.load_weights({**others, **_under("codebook", made.codebook.state_dict())})
    return made.eval()


def origin_of(training: Mapping[str, object]) -> str | None:
    """Say what a tokenizer was made of and what that has changed; None of all others.

    Args:
        training: A training summary; in the file of a stranger anything may be in it.

    Example:
        >>> metrics = {"continuous": {"psnr": 31.5}, "decoder trained": {"psnr": 28.25}}
        >>> made = {"tokenizer": {"path": "kl"}, "images": 16, "metrics": metrics}
        >>> origin_of({"discretized": made})
        'from kl, which is continuous: psnr 31.5000 -> 28.2500'
    """
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        made = cast(Any, training["discretized"])
        first, *_, last = made["metrics"].values()
        changes = (f"{name} {value:.4f} -> {last[name]:.4f}" for name, value in first.items())
        return f"from {made['tokenizer']['path']}, which is continuous: {', '.join(changes)}"
    return None


def _summary(original: Tokenizer) -> dict[str, object]:
    """Return the facts of its training, without its figures, which are of no other tokenizer."""
    return {name: fact for name, fact in original.training_summary.items() if name != "metrics"}


def _joined(
    before: tuple[Tensor, Tensor] | None, factor: float, shift: float, after: torch.nn.Conv2d
) -> dict[str, Tensor]:
    """Join a linear map of channels, or none, with factor * x + shift and another map after it."""
    weight, bias = after.weight.detach().double(), _bias(after)
    joined, offset = weight * factor, bias + shift * weight.sum(dim=(1, 2, 3))
    if before is not None:
        first = before[0].detach().double()[..., 0, 0]
        offset = offset + joined[..., 0, 0] @ before[1]
        joined = (joined[..., 0, 0] @ first)[..., None, None]
    return {WEIGHT: joined.to(after.weight.dtype), BIAS: offset.to(after.weight.dtype)}


def _bias(layer: torch.nn.Conv2d) -> Tensor:
    """Return the bias of a layer that has one, in double precision."""
    assert layer.bias is not None, "projections have one"
    return layer.bias.detach().double()


def _under(name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the name of a module before those of its weights."""
    return {f"{name}.{each}": tensor for each, tensor in weights.items()}
