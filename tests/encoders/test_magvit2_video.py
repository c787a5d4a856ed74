"""The encoder of Open-MAGVIT2 for clips: size, layers, and what sees what."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.encoders.magvit2_video import MAGVIT2VideoEncoder
from vqtrain.errors import ConfigError


def encoder(**changes: object) -> MAGVIT2VideoEncoder:
    sizes = {
        "in_channels": 3,
        "channels": 32,
        "multipliers": [1, 2, 2],
        "time_strides": [1, 2],
        "num_blocks": 1,
        "latent_channels": 5,
    }
    return MAGVIT2VideoEncoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


def test_published_size() -> None:
    sizes = {"multipliers": [1, 2, 2, 4], "time_strides": [1, 2, 2], "latent_channels": 18}
    with torch.device("meta"):
        module = encoder(channels=128, num_blocks=4, **sizes)
    assert sum(parameter.numel() for parameter in module.parameters()) == 144_865_298
    assert module.downsampling == (4, 8, 8)
    assert module.grid((17, 128, 128)) == (5, 16, 16)


def walk(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The encoder of ``encoder()``, layer by layer, from the names of its weights."""

    def normed(name: str, h: Tensor) -> Tensor:
        affine = w[f"{name}.norm.weight"], w[f"{name}.norm.bias"]
        frames = [F.group_norm(frame, 32, *affine, eps=1e-6) for frame in h.unbind(2)]
        return F.silu(torch.stack(frames, dim=2))

    def conv(name: str, h: Tensor, stride: tuple[int, ...] = (1, 1, 1)) -> Tensor:
        weight = w[f"{name}.conv.weight"]
        sides = weight.shape[-1] // 2
        padded = F.pad(h, (*[sides] * 4, weight.shape[2] - 1, 0))
        return F.conv3d(padded, weight, w.get(f"{name}.conv.bias"), stride=stride)

    def block(name: str, x: Tensor) -> Tensor:
        h = conv(
            f"{name}.conv2",
            normed(f"{name}.norm2", conv(f"{name}.conv1", normed(f"{name}.norm1", x))),
        )
        shortcut = f"{name}.nin_shortcut"
        return h + (conv(shortcut, x) if f"{shortcut}.conv.weight" in w else x)

    h = block("down.0.0", conv("conv_in", x))
    h = block("down.1.0", conv("downsample.0", h, (1, 2, 2)))
    h = block("down.2.0", conv("downsample.1", h, (2, 2, 2)))
    return conv("conv_out", normed("norm_out", block("mid.0", h)))


def test_encoder_equals_its_layers_written_out() -> None:
    module = encoder().double()
    clips = torch.randn(1, 3, 5, 8, 12, dtype=torch.float64, requires_grad=True)
    weights = dict(module.named_parameters())
    latents, wanted = module(clips), walk(weights, clips)
    assert latents.shape == (1, 5, 3, 2, 3) == (1, 5, *module.grid((5, 8, 12)))
    torch.testing.assert_close(latents, wanted, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(y.square().sum(), clips)[0] for y in (latents, wanted)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


@torch.no_grad()
def test_no_latent_sees_a_later_frame_and_each_sees_its_own() -> None:
    module = encoder(channels=8, time_strides=[2, 2]).double()
    clips = torch.randn(1, 3, 9, 8, 8, dtype=torch.float64)
    latents = module(clips)
    for frame in range(9):
        changed = clips.clone()
        changed[:, :, frame] += 0.1
        differs = (module(changed) != latents).flatten(3).any(dim=3)[0].any(dim=0).tolist()
        own = -(-frame // 4)  # frame 0 is of latent 0, frames 1 to 4 of latent 1
        assert differs == [number >= own for number in range(3)], frame
    torch.testing.assert_close(module(clips[:, :, :1]), latents[:, :, :1])


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((16, 8, 8), "16 x 8 x 8 has 16 frames, and this encoder takes 1 . 2 k of them: 15 or 17"),
        ((0, 8, 8), "has 0 frames, and this encoder takes 1 . 2 k of them: 1 or 3"),
        ((9, 10, 8), "nearest sizes that do: .* 8 x 8 and .* 12 x 8"),
        ((9, 8), "takes samples of 3 axes"),
    ],
)
def test_a_clip_that_does_not_divide_is_refused(size: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder().grid(size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_strides": [2]}, "time_strides must be one number less than multipliers, 2, got"),
        ({"time_strides": [1, 4]}, "time_strides must be a list of 1 and 2, got"),
        ({"num_blocks": 0}, "num_blocks must be at least 1, got 0"),
    ],
)
def test_an_impossible_size_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder(**change)
