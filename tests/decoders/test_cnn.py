"""The VQGAN decoder: size, names of parameters, and the order of its layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.decoders.cnn import CNNDecoder
from vqtrain.errors import ConfigError


def decoder(**changes: object) -> CNNDecoder:
    sizes = {
        "out_channels": 3,
        "channels": 32,
        "multipliers": [1, 2, 2],
        "num_blocks": 1,
        "attention_factors": [2],
        "latent_channels": 5,
        "dropout": 0.0,
    }
    return CNNDecoder(**{**sizes, **changes})


def published() -> CNNDecoder:
    """The network of the f16 ImageNet model, without memory for its weights."""
    with torch.device("meta"):
        return decoder(
            channels=128,
            multipliers=[1, 1, 2, 2, 4],
            num_blocks=2,
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
    count = conv(256, 512, 3)
    count += 2 * residual(512, 512) + attention(512)  # the middle
    for inputs, outputs in [(512, 512), (512, 256), (256, 256), (256, 128), (128, 128)]:
        count += residual(inputs, outputs) + 2 * residual(outputs, outputs)
    count += 3 * attention(512)  # after the three blocks of the first level
    count += sum(conv(width, width, 3) for width in (512, 256, 256, 128))  # four upsamplings
    count += 2 * 128 + conv(128, 3, 3)
    assert count == 42_449_795
    assert sum(parameter.numel() for parameter in published().parameters()) == count


def test_parameters_are_named_as_in_the_published_code() -> None:
    parts = ["conv_in", "norm_out", "conv_out"]
    block = ["norm1", "conv1", "norm2", "conv2"]
    attn = ["norm", "q", "k", "v", "proj_out"]
    parts += [f"mid.block_{index}.{name}" for index in (1, 2) for name in block]
    parts += [f"mid.attn_1.{name}" for name in attn]
    for level in range(5):
        parts += [f"up.{level}.block.{index}.{name}" for index in (0, 1, 2) for name in block]
    # Coming from level 4, the width changes at levels 3 and 1: 1 1 2 2 4.
    parts += [f"up.{level}.block.0.nin_shortcut" for level in (1, 3)]
    parts += [f"up.4.attn.{index}.{name}" for index in (0, 1, 2) for name in attn]
    parts += [f"up.{level}.upsample.conv" for level in (1, 2, 3, 4)]
    names = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert set(published().state_dict()) == names


def walk(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The decoder of ``decoder()``, layer by layer, from the names of its weights."""

    def convolved(name: str, h: Tensor, **options: int) -> Tensor:
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def normed(name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    def block(name: str, x: Tensor) -> Tensor:
        h = convolved(f"{name}.conv1", F.silu(normed(f"{name}.norm1", x)), padding=1)
        h = convolved(f"{name}.conv2", F.silu(normed(f"{name}.norm2", h)), padding=1)
        is_narrower = f"{name}.nin_shortcut.weight" in w
        return h + (convolved(f"{name}.nin_shortcut", x) if is_narrower else x)

    def attended(name: str, x: Tensor) -> Tensor:
        h = normed(f"{name}.norm", x)
        q, k, v = (convolved(f"{name}.{part}", h).flatten(2) for part in "qkv")
        weights = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=2)
        return x + convolved(f"{name}.proj_out", (v @ weights.transpose(1, 2)).reshape(x.shape))

    def doubled(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    h = convolved("post_quant_conv", x, padding=1) if "post_quant_conv.weight" in w else x
    h = convolved("conv_in", h, padding=1)
    h = block("mid.block_2", attended("mid.attn_1", block("mid.block_1", h)))
    h = block("up.2.block.1", block("up.2.block.0", h))
    h = convolved("up.2.upsample.conv", doubled(h), padding=1)
    for index in (0, 1):
        h = attended(f"up.1.attn.{index}", block(f"up.1.block.{index}", h))
    h = convolved("up.1.upsample.conv", doubled(h), padding=1)
    h = block("up.0.block.1", block("up.0.block.0", h))
    return convolved("conv_out", F.silu(normed("norm_out", h)), padding=1)


@pytest.mark.parametrize("latent_convolution", [False, True])
def test_decoder_equals_its_layers_written_out(latent_convolution: bool) -> None:
    torch.manual_seed(0)
    module = decoder(latent_convolution=latent_convolution).double()
    assert ("post_quant_conv.weight" in module.state_dict()) is latent_convolution
    z_q = torch.randn(1, 5, 4, 2, dtype=torch.float64)
    images = module(z_q)
    assert images.dtype == torch.float64
    torch.testing.assert_close(images, walk(module.state_dict(), z_q))


@pytest.mark.parametrize("multipliers", [[1], [1, 2], [1, 2, 4]])
def test_images_have_the_promised_shape(multipliers: list[int]) -> None:
    module = decoder(channels=8, multipliers=multipliers, attention_factors=[1])
    factor = 2 ** (len(multipliers) - 1)
    assert module.upsampling == (factor, factor)
    assert module.in_channels == 5
    images = module(torch.randn(2, 5, 4, 2))
    assert images.shape == (2, 3, 4 * factor, 2 * factor) == (2, 3, *module.size((4, 2)))


def test_last_layer_makes_the_pixels_and_is_registered_once() -> None:
    module = decoder(channels=8)
    assert module.last_layer.weight.shape == (3, 8, 3, 3)
    assert not any("last_layer" in name for name in module.state_dict())
    with torch.no_grad():
        module.last_layer.weight.zero_()
        module.last_layer.bias.fill_(0.25)
    assert torch.equal(module(torch.randn(1, 5, 2, 2)), torch.full((1, 3, 8, 8), 0.25))


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    module = decoder(channels=16)
    module(torch.randn(2, 5, 4, 4)).square().sum().backward()
    # The bias of the keys shifts all scores of a query alike, which softmax does not see.
    names = [name for name, p in module.named_parameters() if not name.endswith(".k.bias")]
    parameters = dict(module.named_parameters())
    assert [n for n in names if parameters[n].grad is None or not parameters[n].grad.any()] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
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
        decoder(**change)
