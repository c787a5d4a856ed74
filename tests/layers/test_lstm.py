"""The LSTM with a skip; tests/formats/parts/test_graphs.py has its graph."""

import torch

from vqtrain.layers.causal import in_steps
from vqtrain.layers.lstm import SkipLSTM


@torch.no_grad()
def test_pieces_continue_each_other() -> None:
    torch.manual_seed(0)
    layer, x = SkipLSTM(4, 2).double(), torch.randn(2, 4, 9).double()
    wanted = layer.lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0) + x
    torch.testing.assert_close(layer(x), wanted)
    torch.testing.assert_close(in_steps(layer, x, [2, 4, 3]), wanted)
