"""The VideoGPT encoder: size, layers and what is refused."""

import pytest
import torch
import torch.nn.functional as F

from vqtrain.encoders.videogpt import VideoGPTEncoder
from vqtrain.errors import ConfigError


def encoder(**changes: object) -> VideoGPTEncoder:
    sizes = {"in_channels": 3, "channels": 8, "num_blocks": 1, "downsampling": (2, 4, 1)}
    return VideoGPTEncoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


def test_encoder_equals_its_layers_written_out() -> None:
    module = encoder().double()
    clips = torch.randn(2, 3, 4, 8, 5, dtype=torch.float64, requires_grad=True)
    w = dict(module.named_parameters())
    conv = w["convs.0.conv.weight"], w["convs.0.conv.bias"]
    h = F.conv3d(F.pad(clips, (2, 1, 1, 1, 1, 1)), *conv, stride=(2, 2, 1)).relu()
    conv = w["convs.1.conv.weight"], w["convs.1.conv.bias"]
    h = F.conv3d(F.pad(h, (2, 1, 1, 1, 2, 1)), *conv, stride=(1, 2, 1)).relu()
    h = F.conv3d(h, w["conv_last.conv.weight"], w["conv_last.conv.bias"], padding=1)
    h = module.blocks[0](h)  # has a test of its own
    scale, shift = (w[f"blocks.1.{name}"][:, None, None, None] for name in ("weight", "bias"))
    mean, var = h.mean((0, 2, 3, 4)), h.var((0, 2, 3, 4), unbiased=False)
    mean, var = mean[:, None, None, None], var[:, None, None, None]
    wanted = ((h - mean) / (var + 1e-5).sqrt() * scale + shift).relu()
    latents = module(clips)
    assert latents.shape == (2, 8, 2, 2, 5) == (2, module.out_channels, *module.grid((4, 8, 5)))
    torch.testing.assert_close(latents, wanted)
    gradients = [torch.autograd.grad(y.square().sum(), clips)[0] for y in (latents, wanted)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"downsampling": (4, 4)}, "downsampling must be three powers of 2"),
        ({"downsampling": (4, 6, 4)}, "downsampling must be three powers of 2"),
        ({"downsampling": (1, 1, 1)}, "and not all 1, got"),
        ({"channels": 7}, "channels must be an even number, at least 2, got 7"),
        ({"num_blocks": -1}, "num_blocks must be at least 0, got -1"),
    ],
)
def test_an_impossible_size_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder(**change)


def test_a_clip_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="nearest sizes that do: 4 x 8 x 5 and 6 x 8 x 5"):
        encoder().grid((5, 8, 5))
