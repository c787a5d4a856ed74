"""What parts of images see of a clip: its frames, or some of them that are drawn in each step."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Protocol, cast, final, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from vqtrain import distributed
from vqtrain.build import in_context, kind_and_arguments, resolve
from vqtrain.errors import require
from vqtrain.ops.seeds import seed_for

# Samples by the number of their axes, for messages.
NOUNS = {1: "sounds", 2: "images", 3: "clips"}


@runtime_checkable
class Part(Protocol):
    """A loss term or a discriminator."""

    axes: int | None


# From a part and tensors of a batch of samples to what the part sees of them.
Seen = Callable[[Part, Sequence[Tensor]], Sequence[Tensor]]


@final
class Frames:
    """Draws the frames of clips that loss terms and discriminators of images see.

    All of them see the same frames, anew in each step. A draw is a function of the seed of the run,
    the step and the place of the clip in it, so a step does not depend on how it is split over
    batches and ranks.

    Args:
        count: Frames of each clip, different ones and in their order; None for all.
    """

    def __init__(self, count: int | None) -> None:
        self.count = count
        self.begin_step(0, 0)

    def begin_step(self, step: int, seed: int) -> None:
        """Begin a step, with the same arguments on every rank."""
        self._seed, self._batches = seed_for(seed, "frames", step), 0

    def of(self, samples: Float[Tensor, "b c *size"]) -> Seen:
        """Draw frames for a batch, if its samples are clips; else each part sees all of it.

        The result gives a new tensor at each call, so that the graph of one part can be freed
        before that of another. Frames of a clip follow one another in the batch.
        """
        places = distributed.places(self._batches, len(samples))
        self._batches += 1
        are_clips, drawn = samples.ndim == 5, None
        if are_clips and self.count is not None and self.count < samples.shape[2]:
            numbers = range(samples.shape[2])
            draws = [Random(seed_for(self._seed, place)) for place in places]
            own = [sorted(draw.sample(numbers, self.count)) for draw in draws]
            drawn = torch.tensor(own, device=samples.device)

        def seen(part: Part, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
            is_folded = are_clips and part.axes == 2
            return [folded(each, drawn) for each in tensors] if is_folded else tensors

        return seen


def folded(
    clips: Float[Tensor, "b c t h w"], frames: Int64[Tensor, "b n"] | None
) -> Float[Tensor, "bn c h w"]:
    """Return frames of clips as images.

    Args:
        clips: Of any range.
        frames: Their numbers, from 0; None for all.
    """
    if frames is not None:
        rows = torch.arange(len(clips), device=clips.device)[:, None]
        clips = clips.transpose(1, 2)[rows, frames].transpose(1, 2)
    return rearrange(clips, "b c t h w -> (b t) c h w")


def seen_size(part: type, size: Sequence[int], *, where: str) -> tuple[int, ...]:
    """Return the size of what a part sees of samples of a size: of a clip, frames or the whole.

    Args:
        part: The class of a loss term or a discriminator.
        size: Of the axes of a sample.
        where: What chooses the part, for messages.

    Raises:
        ConfigError: If it does not take such samples.
    """
    axes = cast(int | None, getattr(part, "axes", None))
    if axes == 2 and len(size) == 3:
        return tuple(size[1:])
    require(
        axes in (None, len(size)),
        f"{where} takes {NOUNS.get(axes or 0, f'samples of {axes} axes')}, and samples here are "
        f"{NOUNS.get(len(size), f'of {len(size)} axes')}",
    )
    return tuple(size)


def for_samples(
    group: str, specification: Mapping[str, object], context: Mapping[str, object], *, where: str
) -> dict[str, object]:
    """Add to a part's arguments the context of the run, in which it sees what it takes of a clip.

    Args and errors are those of ``vqtrain.build.in_context``; and a ConfigError if the part does
    not take such samples.
    """
    kind, _ = kind_and_arguments(group, specification)
    size = cast(Sequence[int] | None, context.get("sample_size"))
    if size is not None:
        found = resolve(group, kind, where=where)
        context = {**context, "sample_size": seen_size(found, size, where=f"{where}={kind}")}
    return in_context(group, specification, context, where=where)
