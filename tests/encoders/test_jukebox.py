"""The encoder of Jukebox: size, and the order of its layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.encoders.jukebox import JukeboxEncoder
from vqtrain.errors import ConfigError


def encoder(**changes: object) -> JukeboxEncoder:
    sizes = {"in_channels": 1, "channels": 4, "num_blocks": 2, "dilation_base": 3}
    sizes |= {"activation": "relu", "strides": [[2], [3]], "latent_channels": 5}
    return JukeboxEncoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


# Channels, blocks after a stride and halvings of the levels; their networks have 1.486 M parameters
# in all.
LEVELS = [(64, 8, [3], 441_856), (32, 4, [3, 2], 116_384), (32, 4, [3, 2, 2], 168_224)]


@pytest.mark.parametrize(("channels", "num_blocks", "halvings", "count"), LEVELS)
def test_published_sizes(channels: int, num_blocks: int, halvings: list[int], count: int) -> None:
    groups = [[2] * number for number in halvings]
    with torch.device("meta"):
        module = encoder(
            channels=channels, num_blocks=num_blocks, strides=groups, latent_channels=64
        )
    assert sum(parameter.numel() for parameter in module.parameters()) == count
    assert module.downsampling == (2 ** sum(halvings),)


def walk(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The encoder of ``encoder()``, layer by layer, from the names of its weights."""

    def conv(name: str, h: Tensor, **options: int) -> Tensor:
        return F.conv1d(h, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def block(name: str, x: Tensor, dilation: int) -> Tensor:
        h = conv(f"{name}.layers.1", F.relu(x), dilation=dilation, padding=dilation)
        return x + conv(f"{name}.layers.3", F.relu(h))

    h = conv("0.0", x, stride=2, padding=1)  # kernel 4
    h = block("0.2", block("0.1", h, 1), 3)
    h = conv("1", h, padding=1)
    h = conv("2.0", h, stride=3, padding=2)  # kernel 6
    h = block("2.2", block("2.1", h, 1), 3)
    return conv("3", h, padding=1)


def test_encoder_equals_its_layers_written_out() -> None:
    torch.manual_seed(0)
    module = encoder().double()
    sounds = torch.randn(2, 1, 42, dtype=torch.float64, requires_grad=True)
    weights = {name.removeprefix("layers."): w for name, w in module.named_parameters()}
    latents, want = module(sounds), walk(weights, sounds)
    assert latents.shape == (2, 5, 7) == (2, 5, *module.grid((42,)))
    torch.testing.assert_close(latents, want, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(y.square().sum(), sounds)[0] for y in (latents, want)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


@pytest.mark.parametrize("strides", [[], [[]], [[2, 1]]])
def test_impossible_strides_are_refused(strides: list[list[int]]) -> None:
    with pytest.raises(ConfigError, match=r"strides must be a list of groups of strides, such as"):
        encoder(strides=strides)
