"""A frozen network moves with its owner, and is neither trained nor saved by it."""

import copy

import torch
from torch import nn

from vqtrain.layers.frozen import Frozen


def test_it_is_used_and_moved_and_nothing_else() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9))
    owner = nn.ModuleDict({"frozen": Frozen(network)})
    owner.train().requires_grad_(True)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not owner.state_dict()
    assert not list(owner.parameters())
    inputs = torch.randn(2, 3, requires_grad=True)
    output = owner["frozen"](inputs)
    assert torch.equal(output, network[0](inputs))
    output.sum().backward()
    torch.testing.assert_close(inputs.grad, network[0].weight.sum(0).expand(2, 3))
    copied = copy.deepcopy(owner).double()
    assert copied["frozen"](inputs.double()).dtype == torch.float64
    assert owner["frozen"](inputs).dtype == torch.float32
    assert owner.to("meta")["frozen"].network[0].weight.is_meta
