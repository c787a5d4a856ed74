"""Levels and the middle of the VQGAN networks."""

import pytest
import torch
from torch import nn

from vqtrain.errors import ConfigError
from vqtrain.layers.attention import SpatialAttention
from vqtrain.layers.level import Middle, ResidualLevel, build_levels
from vqtrain.layers.resampling import Downsample, Multipliers, Upsample
from vqtrain.ranges import check


def level(*, use_attention: bool, downsample: bool, upsample: bool) -> ResidualLevel:
    return ResidualLevel(
        in_channels=8,
        out_channels=16,
        num_blocks=2,
        use_attention=use_attention,
        dropout=0.0,
        downsample=downsample,
        upsample=upsample,
    )


@pytest.mark.parametrize(
    ("downsample", "upsample", "size"), [(False, False, 4), (True, False, 2), (False, True, 8)]
)
def test_a_level_changes_width_and_resolution(downsample: bool, upsample: bool, size: int) -> None:
    module = level(use_attention=False, downsample=downsample, upsample=upsample)
    assert module(torch.randn(2, 8, 4, 4)).shape == (2, 16, size, size)


def test_attention_follows_every_block() -> None:
    torch.manual_seed(0)
    module = level(use_attention=True, downsample=False, upsample=False)
    x = torch.randn(1, 8, 4, 4)
    expected = module.attn[1](module.block[1](module.attn[0](module.block[0](x))))
    assert torch.equal(module(x), expected)
    names = set(level(use_attention=False, downsample=False, upsample=False).state_dict())
    added = set(module.state_dict()) - names
    assert {name.rsplit(".", 2)[0] for name in added} == {"attn.0", "attn.1"}


def test_middle_keeps_the_shape_and_uses_its_three_parts() -> None:
    torch.manual_seed(0)
    middle = Middle(channels=8, dropout=0.0)
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(middle(x), middle.block_2(middle.attn_1(middle.block_1(x))))


@pytest.mark.parametrize("upsample", [False, True])
def test_levels_have_their_widths_and_attention(upsample: bool) -> None:
    sizes = {"channels": 8, "multipliers": [1, 2], "num_blocks": 1, "latent_channels": 3}
    built = build_levels([8, 8], upsample=upsample, attention_factors=[2], dropout=0.0, **sizes)
    assert [each.block[0].conv1.weight.shape[0] for each in built] == [8, 16]
    assert [isinstance(each.attn[0], SpatialAttention) for each in built] == [False, True]
    changed = [(Downsample, nn.Identity), (nn.Identity, nn.Identity)]
    if upsample:
        changed = [(nn.Identity, nn.Identity), (nn.Identity, Upsample)]
    assert [(type(each.downsample), type(each.upsample)) for each in built] == changed
    with pytest.raises(ConfigError, match=r"attention_factors must be taken from \[1, 2\], got 4"):
        build_levels([8, 8], upsample=upsample, attention_factors=[4], dropout=0.0, **sizes)


@pytest.mark.parametrize("multipliers", [[], [1, 0]])
def test_impossible_multipliers_are_refused(multipliers: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"multipliers must be a list of at least one number"):
        check("multipliers", multipliers, Multipliers)
