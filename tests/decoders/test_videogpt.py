"""The VideoGPT decoder: size, layers and what is refused."""

import pytest
import torch
import torch.nn.functional as F

from vqtrain.decoders.videogpt import VideoGPTDecoder
from vqtrain.encoders.videogpt import VideoGPTEncoder
from vqtrain.errors import ConfigError


def decoder(**changes: object) -> VideoGPTDecoder:
    sizes = {"out_channels": 3, "channels": 8, "num_blocks": 1, "upsampling": (2, 4, 1)}
    return VideoGPTDecoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("factors", [(4, 4, 4), (2, 4, 4), (4, 2, 2)])
def test_published_size(factors: tuple[int, ...]) -> None:
    sizes = {"channels": 240, "num_blocks": 4}
    with torch.device("meta"):
        networks = [
            VideoGPTEncoder(in_channels=3, downsampling=factors, **sizes),
            VideoGPTDecoder(out_channels=3, upsampling=factors, **sizes),
        ]
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [11_286_960, 9_731_283]
    # With the published projections of 240 to 256 channels and back, and their biases.
    assert sum(counts) + 2 * 240 * 256 + 256 + 240 == 21_141_619


def test_decoder_equals_its_layers_written_out() -> None:
    module = decoder().double().eval()
    z_q = torch.randn(2, 8, 2, 2, 5, dtype=torch.float64, requires_grad=True)
    w = dict(module.named_parameters())
    h = module.blocks(z_q)  # have a test of their own
    conv = w["convts.0.convt.weight"], w["convts.0.convt.bias"]
    h = F.conv_transpose3d(F.pad(h, (2, 1, 1, 1, 1, 1)), *conv, stride=(2, 2, 1), padding=3)
    conv = w["convts.1.convt.weight"], w["convts.1.convt.bias"]
    h = F.pad(h.relu(), (2, 1, 1, 1, 2, 1))
    wanted = F.conv_transpose3d(h, *conv, stride=(1, 2, 1), padding=3)
    clips = module(z_q)
    assert clips.shape == (2, 3, 4, 8, 5) == (2, 3, *module.size((2, 2, 5)))
    torch.testing.assert_close(clips, wanted)
    gradients = [torch.autograd.grad(y.square().sum(), z_q)[0] for y in (clips, wanted)]
    torch.testing.assert_close(*gradients)
    assert module.last_layer is module.convts[1].convt


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="upsampling must be three powers of 2"):
        decoder(upsampling=(3, 4, 4))
