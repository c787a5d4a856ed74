"""The transformer, against one written with loops, with and without memory."""

from types import ModuleType

import pytest
import torch
from torch.testing import assert_close

from vqtrain.generation.network import Network

GROUPS = {"causal": range(5), "all": [0] * 5, "scales": [0, 0, 1, 2, 2]}
SEEN = {"causal": [1, 2, 3, 4, 5], "all": [5] * 5, "scales": [2, 2, 3, 5, 5]}
PARTS = {"causal": [2, 1, 1, 1], "all": [5], "scales": [2, 1, 2]}


@pytest.mark.parametrize("kind", GROUPS)
def test_a_position_sees_its_group_and_those_before(kind: str, in_loops: ModuleType) -> None:
    network = Network(depth=2, dim=64, groups=GROUPS[kind]).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    x = torch.randn(2, 5, 64).double()
    out = network(x)
    for own, got in zip(x, out, strict=True):
        wanted = in_loops.transformer(network, list(own + network.positions), SEEN[kind])
        assert_close(got, torch.stack(wanted))
    # The same in parts that remember those before them, down to single positions.
    memory = network.new_memory()
    parts = [network(part, memory) for part in x.split(PARTS[kind], dim=1)]
    assert_close(torch.cat(parts, dim=1), out)
