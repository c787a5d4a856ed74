"""The repeated parts of networks, each of which is recomputed, compiled and sharded as one."""

from collections.abc import Iterator

from torch import nn


class Block(nn.Module):
    """A repeated part of a network, such as a residual block or a block of a transformer.

    A class inherits from it to say that it is such a part, and promises that ``forward`` changes
    nothing, and gives the same for the same inputs and the same state of torch's generators.
    """


class Level(nn.Module):
    """A part of a network that works at one resolution: several blocks, and a change to the next.

    A class inherits from it to say that it is such a part; what holds of ``Block`` holds of it.
    """


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """List the blocks of a network that are in no other block, in the order of registration.

    A network without any is one block itself, whatever its class.

    Example:
        >>> len(blocks_of(nn.Sequential(Block(), nn.Sequential(Block(), nn.ReLU()))))
        2
        >>> blocks_of(nn.Linear(2, 3))
        [Linear(in_features=2, out_features=3, bias=True)]
    """
    return list(_outermost(network, Block)) or [network]


def _outermost(module: nn.Module, kinds: type | tuple[type, ...]) -> Iterator[nn.Module]:
    if isinstance(module, kinds):
        yield module
        return
    for child in module.children():
        yield from _outermost(child, kinds)
