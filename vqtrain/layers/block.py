"""The repeated parts of networks, each of which is recomputed, compiled and sharded as one."""

from abc import ABC

from torch import nn


class Block(nn.Module, ABC):
    """A repeated part of a network, such as a residual block or a block of a transformer.

    A class inherits from it to say that it is such a part, and promises that ``forward`` changes
    nothing, and gives the same for the same inputs and the same state of torch's generators.
    ``Block.register(TheirBlock)`` says so of a class of another package.
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
    return outermost(network, Block) or [network]


def outermost(network: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    """List the modules of these kinds that are in no other one, in the order of registration."""
    if isinstance(network, kinds):
        return [network]
    return [found for child in network.children() for found in outermost(child, *kinds)]
