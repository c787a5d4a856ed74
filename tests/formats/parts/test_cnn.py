"""Networks are read off names and shapes, and every difference is named, for all kinds alike."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vqtrain.build import resolve
from vqtrain.errors import CheckpointError
from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import network
from vqtrain.tokenizer.model import Tokenizer

Weights = dict[str, Tensor]
Make = Callable[[str], Weights]
Write = Callable[[str, Weights], Path]

TABLE = "quantize.embedding.weight"
# A kind, and keys in its checkpoints of every module.
KEYS = {
    "taming": [
        "encoder.conv_in.weight",
        "encoder.down.0.block.0.conv1.weight",
        "encoder.down.1.attn.0.q.bias",
        "encoder.mid.attn_1.norm.weight",
        "encoder.conv_out.bias",
        "decoder.up.1.upsample.conv.weight",
        "decoder.conv_out.weight",
        "quant_conv.weight",
        "post_quant_conv.bias",
        TABLE,
    ],
    "gumbel": ["quantize.embed.weight", "quantize.proj.weight", "quantize.proj.bias"],
    "latent_diffusion": ["encoder.down.1.block.0.nin_shortcut.weight", TABLE],
    "ibq": ["decoder.mid.block_2.norm2.bias", "quant_conv.bias", TABLE],
    "llamagen": [
        "encoder.conv_blocks.0.downsample.conv.weight",
        "encoder.mid.1.k.weight",
        "decoder.conv_blocks.0.res.1.conv2.weight",
        TABLE,
    ],
    "chameleon": ["encoder.norm_out.weight", "post_quant_conv.weight", TABLE],
}
CASES = [(kind, key) for kind, keys in KEYS.items() for key in keys]


def convert(kind: str, path: Path) -> Tokenizer:
    converter = resolve("format", {"gumbel": "taming"}.get(kind, kind))()
    assert isinstance(converter, Converter)
    return converter.convert(path)


def refusal(kind: str, path: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        convert(kind, path)
    assert str(raised.value).startswith(f"cannot convert {path}: ")
    return str(raised.value)


@pytest.mark.parametrize("kind", KEYS)
def test_a_converted_tokenizer_saves_loads_and_reconstructs(
    published: Make, write_published: Write, kind: str, images: Tensor, tmp_path: Path
) -> None:
    tokenizer = convert(kind, write_published(kind, published(kind)))
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = Tokenizer.from_pretrained(tmp_path / "saved")
    token_ids = loaded.encode(images)
    assert token_ids.shape == (2, 16, 24)
    assert torch.equal(token_ids, tokenizer.encode(images))
    assert torch.equal(loaded.decode(token_ids), tokenizer.decode(token_ids))
    assert loaded.config == tokenizer.config


@pytest.mark.parametrize(("kind", "key"), CASES)
def test_a_missing_key_is_named(
    published: Make, write_published: Write, kind: str, key: str
) -> None:
    weights = published(kind)
    del weights[key]
    said = refusal(kind, write_published(kind, weights))
    assert said.endswith(f": {key.split('.')[0]}: {key} is missing")


@pytest.mark.parametrize(("kind", "key"), CASES)
def test_a_renamed_key_is_named(
    published: Make, write_published: Write, kind: str, key: str
) -> None:
    weights = published(kind)
    other = f"{key}_"
    weights[other] = weights.pop(key)
    said = refusal(kind, write_published(kind, weights))
    assert said.endswith(f": {key.split('.')[0]}: {key} is missing, {other} is unknown")


@pytest.mark.parametrize(("kind", "key"), CASES)
def test_a_misshaped_tensor_is_named(
    published: Make, write_published: Write, kind: str, key: str
) -> None:
    weights = published(kind)
    item = weights[key]
    axis = 1 if key in (TABLE, "quantize.embed.weight") else 0  # any number of codes is a table
    weights[key] = torch.cat([item, item.narrow(axis, 0, 1)], dim=axis).contiguous()
    said = refusal(kind, write_published(kind, weights))
    shapes = f"{list(weights[key].shape)} instead of {list(item.shape)}"
    if key == "quantize.proj.weight":  # kept as a matrix here
        shapes = "[25, 16] instead of [24, 16]"
    assert said.endswith(f": {key.split('.')[0]}: {key} is {shapes}")


def test_a_scalar_where_a_tensor_belongs_is_named(published: Make, write_published: Write) -> None:
    for key in ("encoder.conv_in.weight", TABLE, "decoder.conv_out.bias"):
        weights = published("taming") | {key: torch.tensor(1.0)}
        assert f"{key} is []" in refusal("taming", write_published("taming", weights))


def test_differences_are_listed_by_module(published: Make, write_published: Write) -> None:
    weights = published("taming")
    for name in list(weights):
        if name.startswith("decoder.mid.block_1.") or name == "quant_conv.bias":
            del weights[name]
    said = refusal("taming", write_published("taming", weights))
    assert said.endswith(
        "its weights do not fit: "
        "decoder: decoder.mid.block_1.norm1.weight is missing, "
        "decoder.mid.block_1.norm1.bias is missing, "
        "decoder.mid.block_1.conv1.weight is missing and 5 more; "
        "quant_conv: quant_conv.bias is missing"
    )


def test_our_own_names_are_unknown(published: Make, write_published: Write) -> None:
    weights = published("taming") | {"project_in.bias": torch.zeros(8)}
    assert "project_in.bias is unknown" in refusal("taming", write_published("taming", weights))


def test_the_sizes_of_the_published_f16_network() -> None:
    # channels 128, multipliers 1 1 2 2 4, 2 blocks, attention at 16, latents of 256 channels.
    arguments = {
        "channels": 128,
        "multipliers": [1, 1, 2, 2, 4],
        "num_blocks": 2,
        "attention_factors": [16],
        "latent_channels": 256,
        "dropout": 0.0,
        "latent_convolution": False,
    }
    with torch.device("meta"):
        tokenizer = Tokenizer(
            encoder={"kind": "cnn", "arguments": {**arguments, "in_channels": 3}},
            codebook={
                "kind": "fsq",
                "arguments": {"size": 16, "levels": None, "eps": 1e-3},
            },
            decoder={"kind": "cnn", "arguments": {**arguments, "out_channels": 3}},
            channels=3,
        )
    assert network(tokenizer.state_dict()) == (arguments, 3)


def without(*beginnings: str) -> Callable[[Weights], Weights]:
    return lambda weights: {n: t for n, t in weights.items() if not n.startswith(beginnings)}


def also(name: str) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, name: torch.zeros(1)}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (without("encoder.mid.attn_1.", "decoder.mid.attn_1."), "no attention in the middle"),
        (without("encoder.down.0.downsample.", "decoder.up.1.upsample."), "without convolutions"),
        (without("encoder."), "not a network of this kind"),
        (also("encoder.mid.attn_1.to_qkv.weight"), "has linear attention, which cnn has not"),
        (also("encoder.down.1.block.0.conv_shortcut.weight"), "has 3x3 shortcuts"),
        (also("encoder.down.0.block.0.temb_proj.weight"), "has time embeddings"),
        (also("encoder.down.0.block.0.norm1.running_mean"), "has batch normalization"),
    ],
)
def test_networks_that_ours_cannot_be_are_refused(
    published: Make,
    write_published: Write,
    edit: Callable[[Weights], Weights],
    said: str,
) -> None:
    assert said in refusal("taming", write_published("taming", edit(published("taming"))))


def test_channels_that_32_groups_do_not_divide_are_refused(
    published: Make, write_published: Write
) -> None:
    weights = published("taming")
    narrow = {name: item[:16] if len(item) == 32 else item for name, item in weights.items()}
    said = refusal("taming", write_published("taming", narrow))
    assert "its levels have [16, 64] channels and its first layer 16" in said
