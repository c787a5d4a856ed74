"""The VQGAN encoder: size, names of parameters, and the order of its layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.encoders.cnn import CNNEncoder
from vqtrain.errors import ConfigError


def encoder(**changes: object) -> CNNEncoder:
    sizes = {
        "in_channels": 3,
        "channels": 32,
        "multipliers": [1, 2, 2],
        "num_blocks": 2,
        "attention_factors": [2],
        "latent_channels": 5,
        "dropout": 0.0,
    }
    return CNNEncoder(**{**sizes, **changes})


def published() -> CNNEncoder:
    """The network of the f16 ImageNet model, without memory for its weights."""
    with torch.device("meta"):
        return encoder(
            channels=128,
            multipliers=[1, 1, 2, 2, 4],
            attention_factors=[16],
            latent_channels=256,
        )


def conv(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel**2 + outputs


def residual(inputs: int, outputs: int) -> int:
    convolutions = conv(inputs, outputs, 3) + conv(outputs, outputs, 3)
    shortcut = 0 if inputs == outputs else conv(inputs, outputs, 1)
    return 2 * inputs + 2 * outputs + convolutions + shortcut


def attention(width: int) -> int:
    return 2 * width + 4 * conv(width, width, 1)


def test_published_size() -> None:
    count = conv(3, 128, 3)
    for inputs, outputs in [(128, 128), (128, 128), (128, 256), (256, 256), (256, 512)]:
        count += residual(inputs, outputs) + residual(outputs, outputs)
    count += sum(conv(width, width, 3) for width in (128, 128, 256, 256))  # four downsamplings
    count += 2 * attention(512)  # after both blocks of the last level
    count += 2 * residual(512, 512) + attention(512)  # the middle
    count += 2 * 512 + conv(512, 256, 3)
    assert count == 29_298_176
    assert sum(parameter.numel() for parameter in published().parameters()) == count


def test_parameters_are_named_as_in_the_published_code() -> None:
    parts = ["conv_in", "norm_out", "conv_out"]
    block = ["norm1", "conv1", "norm2", "conv2"]
    attn = ["norm", "q", "k", "v", "proj_out"]
    parts += [f"mid.block_{index}.{name}" for index in (1, 2) for name in block]
    parts += [f"mid.attn_1.{name}" for name in attn]
    for level in range(5):
        parts += [f"down.{level}.block.{index}.{name}" for index in (0, 1) for name in block]
    # The width changes at levels 2 and 4: 1 1 2 2 4.
    parts += [f"down.{level}.block.0.nin_shortcut" for level in (2, 4)]
    parts += [f"down.4.attn.{index}.{name}" for index in (0, 1) for name in attn]
    parts += [f"down.{level}.downsample.conv" for level in range(4)]
    names = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert set(published().state_dict()) == names


def walk(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The encoder of ``encoder()``, layer by layer, from the names of its weights."""

    def convolved(name: str, h: Tensor, **options: int) -> Tensor:
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def normed(name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    def block(name: str, x: Tensor) -> Tensor:
        h = convolved(f"{name}.conv1", F.silu(normed(f"{name}.norm1", x)), padding=1)
        h = convolved(f"{name}.conv2", F.silu(normed(f"{name}.norm2", h)), padding=1)
        is_wider = f"{name}.nin_shortcut.weight" in w
        return h + (convolved(f"{name}.nin_shortcut", x) if is_wider else x)

    def attended(name: str, x: Tensor) -> Tensor:
        h = normed(f"{name}.norm", x)
        q, k, v = (convolved(f"{name}.{part}", h).flatten(2) for part in "qkv")
        weights = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=2)
        return x + convolved(f"{name}.proj_out", (v @ weights.transpose(1, 2)).reshape(x.shape))

    h = convolved("conv_in", x, padding=1)
    h = block("down.0.block.1", block("down.0.block.0", h))
    h = convolved("down.0.downsample.conv", F.pad(h, (0, 1, 0, 1)), stride=2)
    for index in (0, 1):
        h = attended(f"down.1.attn.{index}", block(f"down.1.block.{index}", h))
    h = convolved("down.1.downsample.conv", F.pad(h, (0, 1, 0, 1)), stride=2)
    h = block("down.2.block.1", block("down.2.block.0", h))
    h = block("mid.block_2", attended("mid.attn_1", block("mid.block_1", h)))
    h = convolved("conv_out", F.silu(normed("norm_out", h)), padding=1)
    return convolved("quant_conv", h, padding=1) if "quant_conv.weight" in w else h


@pytest.mark.parametrize("latent_convolution", [False, True])
def test_encoder_equals_its_layers_written_out(latent_convolution: bool) -> None:
    torch.manual_seed(0)
    module = encoder(latent_convolution=latent_convolution).double()
    assert ("quant_conv.weight" in module.state_dict()) is latent_convolution
    images = torch.randn(1, 3, 16, 8, dtype=torch.float64)
    latents = module(images)
    assert latents.dtype == torch.float64
    torch.testing.assert_close(latents, walk(module.state_dict(), images))


@pytest.mark.parametrize("multipliers", [[1], [1, 2], [1, 2, 4]])
def test_latents_have_the_promised_shape(multipliers: list[int]) -> None:
    module = encoder(channels=8, multipliers=multipliers, attention_factors=[1], num_blocks=1)
    factor = 2 ** (len(multipliers) - 1)
    assert module.downsampling == (factor, factor)
    latents = module(torch.randn(2, 3, 16, 8))
    assert latents.shape == (2, 5, 16 // factor, 8 // factor) == (2, 5, *module.grid((16, 8)))
    assert module.out_channels == 5


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    module = encoder(channels=16, num_blocks=1)
    module(torch.randn(2, 3, 16, 16)).square().sum().backward()
    # The bias of the keys shifts all scores of a query alike, which softmax does not see.
    names = [name for name, p in module.named_parameters() if not name.endswith(".k.bias")]
    parameters = dict(module.named_parameters())
    assert [n for n in names if parameters[n].grad is None or not parameters[n].grad.any()] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"latent_channels": 0}, "latent_channels must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"num_blocks": 0}, "num_blocks must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
        ({"attention_factors": [16]}, r"attention_factors must be .* \[1, 2, 4\], got 16"),
    ],
)
def test_an_impossible_size_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder(**change)
