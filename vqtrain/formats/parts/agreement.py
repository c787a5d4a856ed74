"""How far what was exported agrees with PyTorch, on the same samples."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vqtrain.data.media import IMAGE, SOUND, media_of
from vqtrain.errors import VqtrainError
from vqtrain.tokenizer.model import Tokenizer

# Latents that move by this share of their size may get another id, and not be called wrong.
NEAR = 1e-4
# Random directions: if one in two crosses the border, all but 1 in 2^32 ties show it.
DRAWS = 32


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What an export may differ by.

    Attributes:
        ids_frac: Share of the ids that may be others, each a near tie unless ``near`` is None;
            rounded up to whole ids, since among few ids one near tie is no fault.
        pixels: Largest difference of decoded images, in [-1, 1], from equal ids.
        near: Share of the latents' size within which an id is a near tie; None takes any.
    """

    ids_frac: float = 1e-4
    pixels: float = 1e-4
    near: float | None = NEAR


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The result of a comparison.

    Attributes:
        images: Images compared.
        ids: Ids compared; 0 where only images were.
        other_ids: How many of them differ.
        pixels: Largest difference of decoded images, from equal ids.
        noun: One of the samples.
    """

    images: int
    ids: int
    other_ids: int
    pixels: float
    noun: str = IMAGE.noun

    def __str__(self) -> str:
        """Return it as a line."""
        same = f"{self.ids - self.other_ids:,} of {self.ids:,} ids are equal, " if self.ids else ""
        values = "values" if self.noun == SOUND.noun else "pixels"
        return f"{self.images} {self.noun}s: {same}{values} differ by at most {self.pixels:.1e}"


@torch.no_grad()
def compare(
    tokenizer: Tokenizer,
    images: Sequence[Float[Tensor, "_ c *_"]],
    *,
    encode: Callable[[Tensor], Tensor] | None,
    decode: Callable[[Tensor], Tensor],
    tolerance: Tolerance,
) -> Agreement:
    """Compare other implementations of ``encode`` and ``decode`` with a tokenizer's own.

    Args:
        tokenizer: The reference, in eval mode.
        images: Batches of samples in [-1, 1], of any sizes.
        encode: From images to ids, as ``Tokenizer.encode``; None for a tokenizer without ids.
        decode: From ids to images, as ``Tokenizer.decode``; without ids, from images to
            reconstructions.
        tolerance: What may differ.

    Raises:
        VqtrainError: If more differs.
    """
    count = ids = other_ids = 0
    gaps = []
    for batch in images:
        count += len(batch)
        if encode is None:
            gaps.append((tokenizer(batch).samples - decode(batch)).abs().max())
            continue
        mine, theirs = tokenizer.encode(batch), encode(batch)
        differs = mine != theirs
        if tolerance.near is not None and bool(differs.any()):
            wrong = differs & ~near_ties(tokenizer, batch, mine, tolerance.near)
            if bool(wrong.any()):
                raise VqtrainError(
                    f"the export gives other ids at {int(wrong.sum())} of {wrong.numel()} places, "
                    "which are no near ties: it is not the same tokenizer"
                )
        ids, other_ids = ids + mine.numel(), other_ids + int(differs.sum())
        gaps.append((tokenizer.decode(mine) - decode(mine)).abs().max())
    pixels = float(torch.stack(gaps).max())  # NaN if one is, other than by Python's max
    noun = media_of(images[0].ndim - 2).noun
    agreement = Agreement(images=count, ids=ids, other_ids=other_ids, pixels=pixels, noun=noun)
    return checked(agreement, tolerance)


def checked(agreement: Agreement, tolerance: Tolerance) -> Agreement:
    """Refuse what differs by more than it may.

    Raises:
        VqtrainError: If it does.
    """
    allowed_ids = math.ceil(tolerance.ids_frac * agreement.ids)
    if agreement.other_ids > allowed_ids or not agreement.pixels <= tolerance.pixels:
        raise VqtrainError(
            f"the export does not agree with PyTorch: {agreement}; allowed are {allowed_ids} other "
            f"ids and {tolerance.pixels:.0e}"
        )
    return agreement


def near_ties(
    tokenizer: Tokenizer,
    images: Float[Tensor, "b c *size"],
    token_ids: Int64[Tensor, " b *tokens"],
    near: float,
) -> Bool[Tensor, " b *tokens"]:
    """Find the ids that would be others if the latents moved by ``near`` of their size."""
    latents = tokenizer.latents(images)
    step = near * latents.square().mean().sqrt()
    generator = torch.Generator(latents.device).manual_seed(0)
    found = torch.zeros_like(token_ids, dtype=torch.bool)
    for _ in range(DRAWS):
        noise = torch.randn(
            latents.shape, generator=generator, dtype=latents.dtype, device=latents.device
        )
        moved = tokenizer.quantize(latents + step * noise).token_ids
        found |= moved.view_as(token_ids) != token_ids
    return found
