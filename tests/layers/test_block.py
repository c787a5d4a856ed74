"""What counts as one block of a network."""

from torch import nn

from vqtrain.encoders.cnn import CNNEncoder
from vqtrain.layers.block import blocks_of
from vqtrain.layers.transformer import CrossBlock


def test_blocks_are_the_outermost_ones_in_order() -> None:
    sizes = {"channels": 8, "multipliers": [1, 2], "num_blocks": 1, "latent_channels": 3}
    encoder = CNNEncoder(in_channels=3, attention_factors=[2], dropout=0.0, **sizes)
    names = {id(module): name for name, module in encoder.named_modules()}
    assert [names[id(block)] for block in blocks_of(encoder)] == [
        "down.0.block.0",
        "down.0.downsample",
        "down.1.block.0",
        "down.1.attn.0",
        "mid.block_1",
        "mid.attn_1",
        "mid.block_2",
    ]
    nested = nn.Sequential(CrossBlock(dim=8, num_heads=2))  # which has a block inside
    assert blocks_of(nested) == [nested[0]]


def test_a_network_without_blocks_is_one() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    assert blocks_of(network) == [network]
