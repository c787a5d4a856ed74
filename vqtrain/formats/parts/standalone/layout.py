"""Takes the place of einops in standalone code: the one function of it that networks use."""

import math
import re

from torch import Tensor


def rearrange(x: Tensor, pattern: str, **sizes: int) -> Tensor:
    """Move, split and merge axes as einops does, by the same steps and so in the same memory.

    Args:
        x: What is rearranged.
        pattern: Of einops: names, groups in parentheses, ``...`` and 1.
        **sizes: Lengths of axes within groups; at most one of each group may be left out.

    Example:
        >>> import torch
        >>> rearrange(torch.zeros(2, 12, 5), "b (h d) n -> b n d h", h=3).shape
        torch.Size([2, 5, 4, 3])
    """
    before, after = (re.findall(r"\([^)]*\)|\S+", side) for side in pattern.split("->"))
    spare = x.ndim - len(before) + 1
    rest = [f"...{index}" for index in range(spare)]

    def axes_of(group: str) -> list[str]:
        """List the axes of a group; an axis of length 1 has no name."""
        names = [name for name in group.strip("()").split() if name != "1"]
        return [axis for name in names for axis in (rest if name == "..." else [name])]

    lengths, shape = dict(sizes), iter(x.shape)
    for group in before:
        if group == "...":
            lengths |= zip(rest, shape, strict=False)
            continue
        total, unknown = next(shape), [name for name in axes_of(group) if name not in lengths]
        known = math.prod(lengths[name] for name in axes_of(group) if name in lengths)
        lengths |= dict.fromkeys(unknown, total // known)
    split = [axis for group in before for axis in axes_of(group)]
    order = [split.index(axis) for group in after for axis in axes_of(group)]
    merged: list[int] = []
    for group in after:
        axes = [lengths[axis] for axis in axes_of(group)]
        merged += axes if group == "..." else [math.prod(axes)]
    return x.reshape([lengths[axis] for axis in split]).permute(order).reshape(merged)
