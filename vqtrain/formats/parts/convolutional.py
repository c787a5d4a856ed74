"""What a file says of networks of residual blocks without attention, by names and shapes."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor

from vqtrain.errors import CheckpointError
from vqtrain.formats.parts.cnn import GROUPS, count, has, vote

# Weight of the commitment of LFQ in all of that code, and the bits of an entropy that are possible.
COMMITMENT, MAX_GROUP_BITS = 0.25, 20
# Where our modules are called as theirs.
SAME = (("encoder.", "encoder.layers."), ("decoder.", "decoder.layers."))


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Arguments of encoder and decoder, and the channels of images."""

    encoder: dict[str, object]
    decoder: dict[str, object]
    latents: int
    channels: int


def sizes(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Sizes:
    """Read the sizes of networks that have the names of our modules.

    A size is that which most tensors agree on, so that a wrong one is seen to be wrong.

    Raises:
        CheckpointError: If it is no such network, or one that ours cannot be.
    """
    if not has(weights, "encoder.layers.down.0.block.0."):
        raise CheckpointError("it has no residual blocks in encoder.down.0: another network")
    down, up = r"encoder\.layers\.down\.", r"decoder\.layers\.up\."
    channels = vote(
        weights, (r"encoder\.layers\.conv_in\.\w+", 0), (rf"{down}0\.block\.0\.norm1\.\w+", 0)
    )
    block = r"\.block\.\d+\.(conv1|conv2|norm2)\.\w+"
    widths = [
        vote(weights, (rf"{down}{level}{block}", 0), (rf"{up}{level}{block}", 0))
        for level in range(count(weights, "encoder.layers.down."))
    ]
    image_channels = vote(
        weights, (r"encoder\.layers\.conv_in\.\w+", 1), (r"decoder\.layers\.conv_out\.\w+", 0)
    )
    latents = vote(
        weights,
        (r"encoder\.layers\.conv_out\.\w+", 0),
        (r"decoder\.layers\.conv_in\.weight", 1),
        (r"codebook\.vectors", 1),
    )
    shared = {
        "channels": channels,
        "multipliers": multiples(channels, widths),
        "latent_channels": latents,
    }
    return Sizes(
        encoder={
            **shared,
            "in_channels": image_channels,
            "num_blocks": count(weights, "encoder.layers.down.0.block."),
        },
        decoder={
            **shared,
            "out_channels": image_channels,
            "num_blocks": count(weights, "decoder.layers.up.0.block."),
        },
        latents=latents,
        channels=image_channels,
    )


def multiples(channels: int, widths: list[int]) -> list[int]:
    """Express the widths of levels as multiples of the first layer's.

    Raises:
        CheckpointError: If they are none, or the norms cannot have their 32 groups.
    """
    for width in (channels, *widths):
        if width % GROUPS or width % channels:
            raise CheckpointError(
                f"its levels have {widths} channels and its first layer {channels}: all must be "
                f"multiples of the first, and of the {GROUPS} groups of the norms"
            )
    return [width // channels for width in widths]


def lfq(found: Sizes, *, entropy_weight: float) -> dict[str, object]:
    """Describe a codebook of the signs of the latents that goes on training as published."""
    arguments = {
        "size": 2**found.latents,
        "commitment_weight": COMMITMENT,
        "entropy_weight": entropy_weight,
        "diversity": 1.0,
        "temperature": 0.01,
        "group_bits": min(found.latents, MAX_GROUP_BITS),
    }
    return {"kind": "lfq", "arguments": arguments}
