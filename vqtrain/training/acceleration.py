"""What makes a step faster or smaller, and does not change what it computes."""

from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vqtrain.errors import require
from vqtrain.layers.block import Block, Level, outermost
from vqtrain.ops.memory import channels_last


def lay_out(tensor: Shaped[Tensor, "*shape"], memory_format: str) -> Shaped[Tensor, "*shape"]:
    """Put a tensor of images or weights into memory as ``trainer.memory_format`` says.

    ``auto`` is channels last, which on a CPU is as fast in float32 and faster in bfloat16.
    """
    return tensor.contiguous() if memory_format == "contiguous" else channels_last(tensor)


def recompute(networks: Mapping[str, nn.Module], unit: str) -> None:
    """Let networks keep only the inputs of their parts for the backward pass.

    Each part is computed again, with the same random numbers, when its gradient is due. The parts
    are those of ``vqtrain.layers.block``; what is between them, and the last layer of the decoder,
    is computed once. Names and state dicts stay as they are.

    Args:
        networks: The encoder and the decoder, by name.
        unit: ``block``, or ``level`` for the levels and the blocks that are in none, or ``none``.

    Raises:
        ConfigError: If one has no such parts.
    """
    if unit == "none":
        return
    for name, network in networks.items():
        levels, blocks = outermost(network, Level), outermost(network, Block)
        where = f"trainer.checkpoint_activations={unit}: the {name}, {type(network).__name__},"
        require(
            len(blocks) > 0,
            f"{where} has no blocks that could be recomputed; a class says that it is one by "
            "inheriting from vqtrain.layers.block.Block",
        )
        require(
            unit == "block" or len(levels) > 0,
            f"{where} has no levels; trainer.checkpoint_activations=block recomputes its blocks",
        )
        for part in blocks if unit == "block" else outermost(network, Level, Block):
            part.forward = MethodType(_recomputed, part)


def _recomputed(part: nn.Module, *inputs: Any, **options: Any) -> Any:  # noqa: ANN401 - the part's
    """Run a part, and keep its inputs alone if there will be a backward pass."""
    forward = type(part).forward
    if not torch.is_grad_enabled():
        return forward(part, *inputs, **options)
    return checkpoint(forward, part, *inputs, use_reentrant=False, **options)
