"""From a file's weights and our modules to a tokenizer, strictly, for networks of any kind."""

from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.formats.parts.cnn import Names, check_same, flipped, renamed
from vqtrain.tokenizer.model import Tokenizer

Part = Mapping[str, object]  # kind and arguments

# Weight of the smaller term of the codebook's loss in nearly all published code.
BETA = 0.25


def load(
    weights: Mapping[str, Shaped[Tensor, "..."]],
    names: Names,
    *,
    encoder: Part,
    codebook: Part,
    decoder: Part,
    channels: int,
    projects: bool,
    sums: Mapping[str, str] | None = None,
) -> Tokenizer:
    """Build a tokenizer, and load weights into it of which none is missing or left over.

    What the codebook has and ``names`` do not list, counters and schedules, starts from zero.

    Args:
        weights: All of a file, by its names, in our layout.
        names: What modules are called there and here, by the beginnings of names; those of the
            networks are the same where it says nothing.
        encoder: Its kind and arguments.
        codebook: In the same form.
        decoder: In the same form.
        channels: Of an image.
        projects: Whether the file has the projections to and from the codebook; without them ours
            pass everything as it is.
        sums: Names in the file of tensors, and of others that are added to them here.

    Raises:
        CheckpointError: If a name is missing or unknown, or a shape is another.
    """
    build = partial(
        Tokenizer, encoder=encoder, codebook=codebook, decoder=decoder, channels=channels
    )
    with torch.device("meta"):  # a wrong shape could be of any size
        shapes = build().state_dict()
    given = ("encoder.", "decoder.", *(own for _, own in names))
    if projects:
        given += ("project_in.", "project_out.")
    theirs = flipped(names)
    sources = {name: renamed(name, theirs) for name in shapes if name.startswith(given)}
    expected = {source: shapes[name] for name, source in sources.items()}
    sums = sums or {}
    check_same(weights, expected | {added: expected[to] for to, added in sums.items()})
    tokenizer = build()
    if not projects:
        for projection in (tokenizer.project_in, tokenizer.project_out):
            torch.nn.init.dirac_(projection.weight)
            torch.nn.init.zeros_(cast(Tensor, projection.bias))
    loaded = {name: weights[source].float() for name, source in sources.items()}
    for name, source in sources.items():
        if source in sums:
            loaded[name] = loaded[name] + weights[sums[source]].float()
    tokenizer.load_weights(tokenizer.state_dict() | loaded)
    return tokenizer.eval()


def stretched(
    weights: Mapping[str, Shaped[Tensor, "..."]], name: str
) -> dict[str, Shaped[Tensor, "..."]]:
    """Let a last layer that gives pixels in [0, 1] give them in [-1, 1]: 2 y - 1.

    Args:
        weights: All of a file.
        name: Of the layer, which has a bias.
    """
    scaled = {
        f"{name}.{part}": 2 * weights[f"{name}.{part}"].float() - shift
        for part, shift in (("weight", 0.0), ("bias", 1.0))
        if f"{name}.{part}" in weights
    }
    return {**weights, **scaled}


def squeezed(
    weights: Mapping[str, Shaped[Tensor, "..."]], name: str
) -> dict[str, Shaped[Tensor, "..."]]:
    """Let a first layer without padding that takes pixels in [0, 1] take them in [-1, 1].

    It becomes a 1x1 convolution over the values of a patch.

    Args:
        weights: All of a file.
        name: Of the layer, a convolution over patches with a bias.
    """
    own = dict(weights)
    weight, bias = own.get(f"{name}.weight"), own.get(f"{name}.bias")
    if weight is not None and weight.ndim == 4:
        flat = weight.float().flatten(1)
        own[f"{name}.weight"] = flat[..., None, None] / 2
        if bias is not None and bias.shape == flat.shape[:1]:
            own[f"{name}.bias"] = bias.float() + flat.double().sum(1).float() / 2
    return own
