"""The decoder of Jukebox: size, and the order of its layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.decoders.jukebox import JukeboxDecoder


def decoder(**changes: object) -> JukeboxDecoder:
    sizes = {"out_channels": 1, "channels": 4, "num_blocks": 2, "dilation_base": 3}
    sizes |= {"activation": "relu", "strides": [[2], [3]], "latent_channels": 5}
    return JukeboxDecoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


LEVELS = [(64, 8, [3], 458_177), (32, 4, [3, 2], 124_641), (32, 4, [3, 2, 2], 176_481)]


@pytest.mark.parametrize(("channels", "num_blocks", "halvings", "count"), LEVELS)
def test_published_sizes(channels: int, num_blocks: int, halvings: list[int], count: int) -> None:
    groups = [[2] * number for number in halvings]
    with torch.device("meta"):
        module = decoder(
            channels=channels, num_blocks=num_blocks, strides=groups, latent_channels=64
        )
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def walk(w: dict[str, Tensor], z_q: Tensor) -> Tensor:
    """The decoder of ``decoder()``, layer by layer, from the names of its weights."""

    def conv(name: str, h: Tensor, **options: int) -> Tensor:
        return F.conv1d(h, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def up(name: str, h: Tensor, stride: int, before: int, after: int) -> Tensor:
        whole = F.conv_transpose1d(h, w[f"{name}.weight"], w[f"{name}.bias"], stride)
        return whole[..., before : whole.shape[-1] - after]

    def block(name: str, x: Tensor, dilation: int) -> Tensor:
        h = conv(f"{name}.layers.1", F.relu(x), dilation=dilation, padding=dilation)
        return x + conv(f"{name}.layers.3", F.relu(h))

    h = conv("0", z_q, padding=1)
    h = up("1.2", block("1.1", block("1.0", h, 3), 1), 3, 2, 1)  # 3 of kernel 6 are too many
    h = conv("2", h, padding=1)
    h = up("3.2", block("3.1", block("3.0", h, 3), 1), 2, 1, 1)
    return conv("4", h, padding=1)


def test_decoder_equals_its_layers_written_out() -> None:
    torch.manual_seed(0)
    module = decoder().double()
    z_q = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    weights = {name.removeprefix("layers."): w for name, w in module.named_parameters()}
    sounds, want = module(z_q), walk(weights, z_q)
    assert sounds.shape == (2, 1, 42) == (2, 1, *module.size((7,)))
    torch.testing.assert_close(sounds, want, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(y.square().sum(), z_q)[0] for y in (sounds, want)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)
