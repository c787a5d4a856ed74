"""What makes a step faster or smaller, and does not change what it computes."""

import time
from collections.abc import Mapping
from importlib import import_module
from types import MethodType
from typing import Any, final

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch.utils.checkpoint import checkpoint

from vqtrain.errors import require
from vqtrain.layers.block import Block, Level, blocks_of, outermost
from vqtrain.layers.frozen import Frozen
from vqtrain.objective import Objective
from vqtrain.ops.memory import channels_last
from vqtrain.tokenizer.model import Tokenizer

# Blocks of one class share what is compiled, once for each shape: a network has a dozen.
MAX_SHAPES = 256


def lay_out(tensor: Shaped[Tensor, "*shape"], memory_format: str) -> Shaped[Tensor, "*shape"]:
    """Put a tensor of images or weights into memory as ``trainer.memory_format`` says.

    ``auto`` is channels last, which on a CPU is as fast in float32 and faster in bfloat16.
    """
    return tensor.contiguous() if memory_format == "contiguous" else channels_last(tensor)


def lay_out_weights(module: nn.Module, memory_format: str) -> None:
    """Put all weights and buffers of a module into memory as ``lay_out`` does.

    Those of frozen networks, too, or their convolutions would lay out their kernels at each call.
    """
    frozen = [each.network for each in module.modules() if isinstance(each, Frozen)]
    for owner in (module, *frozen):
        for tensor in [*owner.parameters(), *owner.buffers()]:
            tensor.data = lay_out(tensor.data, memory_format)


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


def compile_parts(tokenizer: Tokenizer, objective: Objective, *, accumulate: int) -> "CompileClock":
    """Let torch compile the blocks of the encoder and the decoder, and the perceptual networks.

    Equal blocks share their code. What is between them stays as it is, and so does the last layer
    of the decoder, whose gradient is asked for by itself: a compiled graph computes all of its
    gradients. For the same reason the discriminator is not compiled: it is differentiated by the
    reconstructions first and by its weights later.

    Args:
        tokenizer: Of the run.
        objective: Of the run.
        accumulate: Batches in a step.

    Returns:
        What knows how long torch has been compiling.
    """
    # Where a batch may be differentiated twice, the first backward pass must leave the activations
    # as they are, also if its graph comes from torch's cache: its key holds the second of these.
    once = accumulate == 1 and not objective.goes_deeper
    functorch_config.donated_buffer, options = once, {"inplace_buffers": once}
    last_layer = tokenizer.decoder.last_layer
    parts = [*blocks_of(tokenizer.encoder), *blocks_of(tokenizer.decoder)]
    if any(module is last_layer for part in parts for module in part.modules()):
        last_layer.forward = torch.compiler.disable(last_layer.forward)  # type: ignore[no-untyped-call]  # torch's own
    parts += [loss for loss in objective.losses if outermost(loss, Frozen)]
    clock = CompileClock()
    for part in parts:
        part.compile(dynamic=False, recompile_limit=MAX_SHAPES, options=options)
    return clock


@final
class CompileClock:
    """Measures the time in which torch compiles, in this process."""

    def __init__(self) -> None:
        self._seconds, self._began = 0.0, 0.0
        callbacks = import_module("torch._dynamo.callback")  # it takes a second
        callbacks.on_compile_start(self._begin)
        callbacks.on_compile_end(self._end)

    def _begin(self, args: object) -> None:
        del args
        self._began = time.monotonic()

    def _end(self, args: object) -> None:
        del args
        self._seconds += time.monotonic() - self._began

    def take_seconds(self) -> float:
        """Return the time since the last call, in seconds."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
