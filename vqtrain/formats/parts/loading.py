"""From a file's weights and our modules to a tokenizer, strictly, for networks of any kind."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.errors import CheckpointError
from vqtrain.layers.pointwise import Pointwise
from vqtrain.tokenizer.checks import differences
from vqtrain.tokenizer.model import Tokenizer

Part = Mapping[str, object]  # kind and arguments
# Names of a file and of ours, by their beginnings. One there may be several here, which it stacks.
Names = Sequence[tuple[str, str]]
# Differences of a module that are named; more only say that it is another network.
MAX_NAMED = 3

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
    copies: Mapping[str, str] | None = None,
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
        copies: Names in the file of tensors that it holds a second time, and where they are first.

    Raises:
        CheckpointError: If a name is missing or unknown, a shape is another, or a copy differs.
    """
    build = partial(
        Tokenizer, encoder=encoder, codebook=codebook, decoder=decoder, channels=channels
    )
    with torch.device("meta"):  # a wrong shape could be of any size
        shapes = build().state_dict()
    given = ("encoder.", "decoder.", *(own for _, own in names))
    if projects:
        given += ("project_in.", "project_out.")
    stacks = stacked([name for name in shapes if name.startswith(given)], names)
    expected = {of: torch.cat([shapes[name] for name in stack]) for of, stack in stacks.items()}
    sums, copies = sums or {}, copies or {}
    more = {name: expected[of] for name, of in copies.items()}
    check_same(weights, expected | more | {added: expected[to] for to, added in sums.items()})
    for copy, of in copies.items():
        if not torch.equal(weights[copy], weights[of]):
            raise CheckpointError(f"{copy} differs from {of}, of which it must be a copy")
    tokenizer = build()
    if not projects:
        for projection in (tokenizer.project_in, tokenizer.project_out):
            pass_on(projection)
    loaded = tokenizer.state_dict()
    for of, stack in stacks.items():
        whole = weights[of].float()
        if of in sums:
            whole = whole + weights[sums[of]].float()
        loaded |= dict(zip(stack, whole.chunk(len(stack)), strict=True))
    tokenizer.load_weights(loaded)
    return tokenizer.eval()


def pass_on(projection: Pointwise) -> None:
    """Let a projection with as many channels before as after pass them on as they are."""
    torch.nn.init.dirac_(projection.weight)
    torch.nn.init.zeros_(cast(Tensor, projection.bias))


def unload(
    own: Mapping[str, Shaped[Tensor, "..."]], names: Names
) -> dict[str, Shaped[Tensor, "..."]]:
    """Give weights the names and the type that a file has, as ``load`` takes them.

    Args:
        own: Those of ours that the file holds.
        names: As of ``load``.
    """
    return {
        of: torch.cat([own[name] for name in stack]).float()
        for of, stack in stacked(own, names).items()
    }


def stacked(own: Iterable[str], names: Names) -> dict[str, list[str]]:
    """List our tensors by the names that a file has for them; one there may be several here."""
    theirs = flipped(names)
    stacks: dict[str, list[str]] = {}
    for name in own:
        stacks.setdefault(renamed(name, theirs), []).append(name)
    return stacks


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


def check_same(
    weights: Mapping[str, Shaped[Tensor, "..."]], expected: Mapping[str, Shaped[Tensor, "..."]]
) -> None:
    """Compare names and shapes, and list differences by module.

    Raises:
        CheckpointError: If there are any.
    """
    wrong: dict[str, list[str]] = {}
    for difference in differences(weights, expected):
        wrong.setdefault(re.split("[. ]", difference)[0], []).append(difference)
    if wrong:
        modules = "; ".join(f"{module}: {listed(items)}" for module, items in wrong.items())
        raise CheckpointError(f"its weights do not fit: {modules}")


def listed(items: Sequence[str]) -> str:
    """Join the first of several remarks, and count the others."""
    rest = f" and {len(items) - MAX_NAMED} more" if len(items) > MAX_NAMED else ""
    return f"{', '.join(items[:MAX_NAMED])}{rest}"


def renamed(name: str, names: Names) -> str:
    """Replace the beginning of a name by another, if it is one of those listed."""
    for old, new in names:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def flipped(names: Names) -> Names:
    """Turn names back."""
    return [(new, old) for old, new in names]
