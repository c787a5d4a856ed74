"""The networks of a tokenizer on a whole sample, by tiles or, if they are causal, by pieces."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.decoders.base import Decoder
from vqtrain.distributed import is_split
from vqtrain.encoders.base import Encoder
from vqtrain.errors import require
from vqtrain.layers.causal import Stream, in_steps
from vqtrain.layers.pointwise import Pointwise
from vqtrain.ops.tiles import in_tiles


def encode(
    encoder: Encoder,
    project_in: Pointwise,
    samples: Shaped[Tensor, "b c *size"],
    *,
    check: Callable[[Tensor], None] | None,
    tile: int | None,
    piece: int | None,
) -> Float[Tensor, "b d *grid"]:
    """Turn samples into latents of the codebook.

    Args:
        encoder: The encoder.
        project_in: From its latents to those of the codebook.
        samples: On any device: they are moved to that of the projection.
        check: Refuses values that are none of samples; None to let all pass.
        tile: Side of tiles, in px, as ``check_tile`` allows it; None for no tiles.
        piece: Length of pieces along the first axis; None for one piece.

    Raises:
        ConfigError: If the encoder does not take such pieces.
    """

    def enter(part: Tensor) -> Tensor:
        own = part.to(project_in.weight)
        if check is not None:
            check(own)
        return own

    def call(own: Tensor) -> Tensor:
        return project_in(encoder(own))

    grid = encoder.grid(samples.shape[2:])
    return _run(encoder, call, samples, grid, enter=enter, tile=tile, piece=piece)


def decode(
    decoder: Decoder,
    project_out: Pointwise,
    z_q: Float[Tensor, "b d *grid"],
    *,
    tile: int | None,
    piece: int | None,
    to: torch.device,
) -> Float[Tensor, "b c *size"]:
    """Turn quantized latents into samples.

    Args:
        decoder: The decoder.
        project_out: From latents of the codebook to those of the decoder.
        z_q: The latents.
        tile: As of ``encode``.
        piece: As of ``encode``.
        to: The device of the samples.

    Raises:
        ConfigError: If the decoder does not take such pieces.
    """

    def enter(part: Tensor) -> Tensor:
        return part.to(project_out.weight.dtype)

    def call(own: Tensor) -> Tensor:
        return decoder(project_out(own))

    def leave(samples: Tensor) -> Tensor:
        return samples.to(to)

    grid = z_q.shape[2:]
    return _run(decoder, call, z_q, grid, enter=enter, leave=leave, tile=tile, piece=piece)


def _run(
    network: Encoder | Decoder,
    call: Callable[[Tensor], Tensor],
    x: Shaped[Tensor, "b c *size"],
    grid: Sequence[int],
    *,
    enter: Callable[[Tensor], Tensor],
    leave: Callable[[Tensor], Tensor] = lambda y: y,
    tile: int | None,
    piece: int | None,
) -> Float[Tensor, "b d *out"]:
    """Call a network on an input, each piece of which enters its device and leaves it."""
    lengths = steps_of(network, grid)

    def whole(x: Tensor) -> Tensor:
        return call(x) if lengths is None else in_steps(call, x, lengths)

    if piece is None:
        return leave(whole(enter(x)) if tile is None else _in_tiles(network, whole, enter(x), tile))
    require(tile is None, f"tile={tile} and piece={piece} exclude each other")
    at_once = _steps_of_a_piece(network, piece)
    if lengths is None:
        return leave(whole(enter(x)))
    stream, found = Stream(), []
    for first in range(0, len(lengths), at_once):
        own = lengths[first : first + at_once]
        part = enter(x.narrow(2, sum(lengths[:first]), sum(own)))
        found.append(leave(in_steps(call, part, own, stream)))
    return torch.cat(found, dim=2)


def steps_of(network: Encoder | Decoder, grid: Sequence[int]) -> list[int] | None:
    """Return the lengths of the steps in which a network runs; None if it sees its input whole.

    In eval mode a causal network runs in steps of a few latents, so that nothing later changes what
    it computes, not even in the last bit, and a piece gives what the whole does. Split over ranks
    it does not: they must call it equally often, and their samples may differ in length.
    """
    if not network.causal or network.training or torch.compiler.is_compiling():
        return None
    if any(map(is_split, network.parameters())):
        return None
    at_once = network.latents_at_once
    latents = [min(at_once, grid[0] - first) for first in range(0, grid[0], at_once)]
    if isinstance(network, Decoder):
        return latents
    ends = [network.size((end, *grid[1:]))[0] for end in accumulate(latents)]
    return [end - begin for begin, end in pairwise([0, *ends])]


def _in_tiles(
    network: Encoder | Decoder,
    whole: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b c *size"],
    side: int,
) -> Float[Tensor, "b d *out"]:
    if isinstance(network, Encoder):
        tile, unit = [side] * (x.ndim - 2), list(network.downsampling)
    else:
        tile, unit = [side // factor for factor in network.upsampling], [1] * (x.ndim - 2)
    if network.causal:  # the first axis needs no tiles
        tile[0] = unit[0] = x.shape[2]
    return in_tiles(whole, x, tile=tile, unit=unit)


def _steps_of_a_piece(network: Encoder | Decoder, piece: int) -> int:
    word = "encoder" if isinstance(network, Encoder) else "decoder"
    require(
        network.causal,
        f"piece={piece} needs a causal {word}, and {type(network).__name__} is not: use tile or "
        "batch_size",
    )
    factors = network.downsampling if isinstance(network, Encoder) else network.upsampling
    unit = factors[0] * network.latents_at_once
    require(piece >= unit and piece % unit == 0, f"piece must be a multiple of {unit}, got {piece}")
    return piece // unit
