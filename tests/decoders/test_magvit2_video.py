"""The decoder of Open-MAGVIT2 for clips: size, layers, and what sees what."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.decoders.magvit2_video import MAGVIT2VideoDecoder


def decoder(**changes: object) -> MAGVIT2VideoDecoder:
    sizes = {
        "out_channels": 3,
        "channels": 32,
        "multipliers": [1, 2, 2],
        "time_strides": [1, 2],
        "num_blocks": 1,
        "latent_channels": 5,
    }
    return MAGVIT2VideoDecoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


def test_published_size() -> None:
    sizes = {"multipliers": [1, 2, 2, 4], "time_strides": [1, 2, 2], "latent_channels": 18}
    with torch.device("meta"):
        module = decoder(channels=128, num_blocks=4, **sizes)
    assert sum(parameter.numel() for parameter in module.parameters()) == 225_682_051
    assert module.size((5, 16, 16)) == (17, 128, 128)


def walk(w: dict[str, Tensor], z: Tensor) -> Tensor:
    """The decoder of ``decoder()``, layer by layer and norms frame by frame, from its names."""

    def conv(name: str, h: Tensor) -> Tensor:
        weight = w[f"{name}.conv.weight"]
        sides = weight.shape[-1] // 2
        padded = F.pad(h, (*[sides] * 4, weight.shape[2] - 1, 0))
        return F.conv3d(padded, weight, w.get(f"{name}.conv.bias"))

    def normed(name: str, h: Tensor) -> Tensor:
        affine = w[f"{name}.norm.weight"], w[f"{name}.norm.bias"]
        frames = [F.group_norm(frame, 32, *affine, eps=1e-6) for frame in h.unbind(2)]
        return F.silu(torch.stack(frames, dim=2))

    def block(name: str, x: Tensor) -> Tensor:
        h = conv(f"{name}.conv1", normed(f"{name}.norm1", x))
        h = conv(f"{name}.conv2", normed(f"{name}.norm2", h))
        shortcut = f"{name}.nin_shortcut"
        return h + (conv(shortcut, x) if f"{shortcut}.conv.weight" in w else x)

    def adapted(level: int, h: Tensor, latent_of: list[int]) -> Tensor:
        frames = []
        for frame, latent in zip(h.unbind(2), latent_of, strict=True):
            own = z[:, :, latent].flatten(2)
            spread = (own.var(dim=2, unbiased=True) + 1e-6).sqrt()
            scale = F.linear(
                spread, w[f"adaptive.{level}.gamma.weight"], w[f"adaptive.{level}.gamma.bias"]
            )
            shift = F.linear(
                own.mean(dim=2),
                w[f"adaptive.{level}.beta.weight"],
                w[f"adaptive.{level}.beta.bias"],
            )
            plain = F.group_norm(frame, 32, eps=1e-6)
            frames.append(plain * scale[..., None, None] + shift[..., None, None])
        return torch.stack(frames, dim=2)

    def upsampled(name: str, h: Tensor, time: int) -> Tensor:
        b, _, t, height, width = h.shape
        h = conv(f"{name}.conv", h).reshape(b, time, 2, 2, -1, t, height, width)
        out = torch.zeros(b, h.shape[4], t * time, 2 * height, 2 * width, dtype=h.dtype)
        for r in range(time):
            for p in range(2):
                for q in range(2):
                    out[:, :, r::time, p::2, q::2] = h[:, r, p, q]
        return out[:, :, [0, *range(time, t * time)]]

    h = block("mid.0", conv("conv_in", z))
    h = upsampled("upsample.1", block("up.2.0", adapted(2, h, [0, 1, 2])), 2)
    h = upsampled("upsample.0", block("up.1.0", adapted(1, h, [0, 1, 1, 2, 2])), 1)
    h = block("up.0.0", adapted(0, h, [0, 1, 1, 2, 2]))
    return conv("conv_out", normed("norm_out", h))


def test_decoder_equals_its_layers_written_out() -> None:
    module = decoder().double()
    z = torch.randn(2, 5, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    clips, wanted = module(z), walk(dict(module.named_parameters()), z)
    assert clips.shape == (2, 3, 5, 8, 12) == (2, 3, *module.size((3, 2, 3)))
    torch.testing.assert_close(clips, wanted, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(y.square().sum(), z)[0] for y in (clips, wanted)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)
    assert module.last_layer is module.conv_out.conv


@torch.no_grad()
def test_no_frame_sees_a_later_latent() -> None:
    module = decoder(channels=8, time_strides=[2, 2]).double()
    z = torch.randn(1, 5, 3, 2, 2, dtype=torch.float64)
    clips = module(z)
    for latent in range(3):
        changed = z.clone()
        changed[:, :, latent] += 0.1 * torch.randn(2, 2)
        differs = (module(changed) != clips).flatten(3).any(dim=3)[0].any(dim=0).tolist()
        first = max(0, 4 * latent - 3)  # latent 0 is of frame 0, latent 1 of frames 1 to 4
        assert differs == [frame >= first for frame in range(9)], latent
    torch.testing.assert_close(module(z[:, :, :1]), clips[:, :, :1])
