"""The networks of SEANet against EnCodec and DAC in transformers, with the same weights."""

import pytest
import torch
from torch import Tensor, nn
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel
from transformers.models.dac.modeling_dac import Snake1d

from vqtrain.layers.activations import Snake
from vqtrain.layers.seanet import SEANet, seanet_down, seanet_up
from vqtrain.layers.weight_norm import WeightNorm

ENCODEC: SEANet = {
    "channels": 4,
    "strides": [2, 3],
    "latent_channels": 5,
    "num_blocks": 2,
    "dilation_base": 2,
    "compress": 2,
    "convolved_shortcut": True,
    "activation": "elu",
    "kernel_size": 7,
    "last_kernel_size": 5,
    "block_kernel_size": 3,
    "num_lstm_layers": 2,
    "weight_norm": True,
    "causal": True,
    "padding": "zeros",
}
DAC: SEANet = {
    **ENCODEC,
    "strides": [2, 4],
    "num_blocks": 3,
    "dilation_base": 3,
    "compress": 1,
    "convolved_shortcut": False,
    "activation": "snake",
    "block_kernel_size": 7,
    "num_lstm_layers": 0,
    "weight_norm": False,
    "causal": False,
}


@torch.no_grad()
def take_over(mine: nn.Module, theirs: nn.Module) -> None:
    """Draw the weights of one network, and copy them to the other, layer by layer."""
    kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.LSTM, Snake, Snake1d)
    own, other = ([m for m in each.modules() if isinstance(m, kinds)] for each in (mine, theirs))
    lengths = [module.gain for module in mine.modules() if isinstance(module, WeightNorm)]
    for module, source in zip(own, other, strict=True):
        for name, parameter in module.named_parameters():
            if hasattr(source, "parametrizations") and name == "weight":
                weight = source.parametrizations.weight
                lengths.pop(0).copy_(weight.original0.uniform_(0.5, 1.5))
                parameter.copy_(weight.original1.normal_())
            else:
                given = source.get_parameter(name)
                parameter.copy_(
                    given.normal_(1.0 if name == "alpha" else 0.0, 0.3).view_as(parameter)
                )
    assert not lengths


def compare(mine: nn.Module, theirs: nn.Module, x: Tensor) -> Tensor:
    """Compare outputs and gradients."""
    take_over(mine.double(), theirs.double())
    x = x.double().requires_grad_()
    found, wanted = mine(x), theirs(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    gradients = []
    for network, y in ((mine, found), (theirs, wanted)):
        weights = [p for p in network.parameters() if p.shape[-1:] == (7,)]
        gradients.append(torch.autograd.grad(y.square().mean(), [x, weights[0]]))
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)
    return found


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("causal", [True, False])
def test_encodec(causal: bool, padding: str) -> None:
    torch.manual_seed(0)
    sizes: SEANet = {**ENCODEC, "causal": causal, "padding": padding}
    theirs = EncodecModel(
        EncodecConfig(
            num_filters=4,
            upsampling_ratios=[3, 2],
            hidden_size=5,
            num_residual_layers=2,
            last_kernel_size=5,
            use_causal_conv=causal,
            pad_mode="constant" if padding == "zeros" else "reflect",
        )
    )
    latents = compare(seanet_down(1, sizes), theirs.encoder, torch.randn(2, 1, 72))
    assert latents.shape == (2, 5, 12)
    sounds = compare(seanet_up(1, sizes), theirs.decoder, torch.randn(2, 5, 12))
    assert sounds.shape == (2, 1, 72)
    if causal:  # with less than there is to reflect
        compare(seanet_down(1, sizes), theirs.encoder, torch.randn(2, 1, 12))
        compare(seanet_up(1, sizes), theirs.decoder, torch.randn(2, 5, 2))


def test_dac() -> None:
    torch.manual_seed(0)
    theirs = DacModel(
        DacConfig(encoder_hidden_size=4, downsampling_ratios=[2, 4], decoder_hidden_size=24)
    )
    down: SEANet = {**DAC, "latent_channels": 16, "last_kernel_size": 3}
    latents = compare(seanet_down(1, down), theirs.encoder, torch.randn(2, 1, 64))
    assert latents.shape == (2, 16, 8)
    up: SEANet = {**DAC, "channels": 6, "latent_channels": 16, "last_kernel_size": 7}
    sounds = compare(
        nn.Sequential(seanet_up(1, up), nn.Tanh()), theirs.decoder, torch.randn(2, 16, 8)
    )
    assert sounds.shape == (2, 1, 64)
    published = {"strides": [2, 4, 8, 8], "latent_channels": 1024}
    with torch.device("meta"):
        encoder = seanet_down(1, {**down, **published, "channels": 64})
        decoder = seanet_up(1, {**up, **published, "channels": 96})
    counts = [sum(p.numel() for p in network.parameters()) for network in (encoder, decoder)]
    assert counts == [22_299_200, 54_091_105]  # of transformers' DacModel
