"""Memory of tensors without values, against bytes counted by hand."""

import copy

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vqtrain.ops.unallocated import TRACED_BATCH, CopyWithoutValues, MemoryTrace

CPU = torch.device("cpu")


def without_values(network: nn.Module) -> tuple[nn.Module, int]:
    with CopyWithoutValues(CPU, torch.float32) as copies:
        return copy.deepcopy(network), copies.nbytes


def test_bytes_of_a_network_of_two_layers() -> None:
    network, nbytes = without_values(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    assert nbytes == 4 * (4 * 8 + 8 + 8 * 2 + 2)
    with MemoryTrace() as trace:
        samples = torch.zeros(TRACED_BATCH, 4)  # 16 bytes a sample
        hidden = network[0](samples)  # 32 more
        rectified = network[1](hidden)  # 32 more
        del hidden
        network[2](rectified)  # 8 more, without the 32 of what was not rectified
    assert trace.moments == {(0, 16), (0, 48), (0, 80), (0, 56)}
    with MemoryTrace() as trace:
        samples = torch.zeros(TRACED_BATCH, 4)
        network(samples).sum().backward()
    # The backward pass begins with the samples and what is rectified, 48. The largest moment is
    # in the middle, with two gradients of 32: those of the last layer's input and of the first
    # one's output. The gradients of the last layer's weights, 64 and 8 bytes, are there already, as
    # are the sum and its gradient, of 4 bytes each.
    assert max(trace.moments, key=lambda moment: moment[1]) == (4 + 4 + 64 + 8, 48 + 64)
    # At the end there are the gradients of all weights.
    assert max(constant for constant, _ in trace.moments) == 4 + 4 + nbytes


def test_what_is_computed_again_is_not_kept() -> None:
    network, _ = without_values(nn.Sequential(*(nn.Sigmoid() for _ in range(6))))

    def largest(is_kept: bool) -> int:
        with MemoryTrace() as trace:
            x = torch.zeros(TRACED_BATCH, 1, requires_grad=True)
            if is_kept:
                y = network(x)
            else:
                for half in (network[:3], network[3:]):
                    x = checkpoint(half, x, use_reentrant=False)
                y = x
            y.sum().backward()
        return max(a_sample for _, a_sample in trace.moments)

    # All six results, the input, and a gradient before and after a sigmoid.
    assert largest(is_kept=True) == 4 * 9
    # The input, the two halves' results, two more of a half that is computed again.
    assert largest(is_kept=False) < 4 * 9
