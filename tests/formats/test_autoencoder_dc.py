"""diffusers' own AutoencoderDC, with random weights, against ours."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC as Theirs
from safetensors.torch import load_file, save_file
from torch import Tensor

from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.formats.autoencoder_dc import AutoencoderDC, DCSettings

WEIGHTS = "diffusion_pytorch_model.safetensors"
RESIDUAL, ATTENTION = "ResBlock", "EfficientViTBlock"


def blocks(stages: int) -> dict[str, Any]:
    """Attention in the stages from the third or fourth on, as published."""
    first = min(3, stages - 1)
    types = [RESIDUAL] * first + [ATTENTION] * (stages - first)
    return {"encoder_block_types": types, "decoder_block_types": types}


def scales(*kernels: int, stages: int = 6) -> dict[str, Any]:
    sizes = [[]] * min(3, stages - 1) + [list(kernels)] * (stages - min(3, stages - 1))
    return {"encoder_qkv_multiscales": sizes, "decoder_qkv_multiscales": sizes}


def widths(*channels: int) -> dict[str, Any]:
    return {"encoder_block_out_channels": channels, "decoder_block_out_channels": channels}


def half_size(stages: int) -> dict[str, Any]:
    """What the published models of ImageNet have: no blocks at full size, batch normalization."""
    first = min(3, stages - 1)
    kinds = stages - first
    return {
        "decoder_norm_types": ["batch_norm"] * first + ["rms_norm"] * kinds,
        "decoder_act_fns": ["relu"] * first + ["silu"] * kinds,
    }


# In small: SANA's, and those of ImageNet.
SANA = {"downsample_block_type": "Conv", "upsample_block_type": "interpolate"}
SANA |= {"encoder_layers_per_block": (1, 1, 2), "decoder_layers_per_block": (2, 1, 1)}
SANA |= {**scales(5, stages=3), "scaling_factor": 0.41407}
IMAGENET = {"encoder_layers_per_block": (0, 2, 1), "decoder_layers_per_block": (0, 1, 2)}
IMAGENET |= {**half_size(3), **scales(stages=3), "scaling_factor": 0.3189}
VARIANTS = {"sana": SANA, "imagenet": IMAGENET}


def make_model(**settings: Any) -> Theirs:
    """A small model whose weights all differ from each other."""
    common = {**widths(8, 16, 32), **blocks(3), "latent_channels": 4, "attention_head_dim": 8}
    model = Theirs(**{**common, **settings}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_latents_and_pixels_are_those_of_the_original(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    model = make_model(**settings)
    model.save_pretrained(tmp_path)
    tokenizer = AutoencoderDC().convert(tmp_path)
    assert tokenizer.downsampling == (4, 4)
    scale = settings["scaling_factor"]
    for images in (torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(1, 3, 8, 24) * 2 - 1):
        latents = model.encode(images).latent
        z_q = tokenizer.quantize(tokenizer.latents(images)).z_q
        torch.testing.assert_close(z_q, latents * scale, rtol=1e-5, atol=1e-5)
        ours, theirs = tokenizer.decode_latents(z_q), model.decode(latents).sample
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert tokenizer.training_summary == {"latents": {"scale": scale, "shift": 0.0}}


F32 = {**blocks(6), **widths(128, 256, 512, 512, 1024, 1024)}
# Of ImageNet and of a mix, with 32, 64 and 128 px a latent: batch normalization has four tensors
# for each bias of ours.
PUBLISHED = {
    "sana": {
        **F32,
        **SANA,
        **scales(5),
        "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
        "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
    },
    "f32c32": {
        **F32,
        **half_size(6),
        **scales(),
        "encoder_layers_per_block": (0, 4, 8, 2, 2, 2),
        "decoder_layers_per_block": (0, 5, 10, 2, 2, 2),
    },
    "f64c128": {
        **blocks(7),
        **widths(128, 256, 512, 512, 1024, 1024, 2048),
        **half_size(7),
        **scales(stages=7),
        "encoder_layers_per_block": (0, 4, 8, 2, 2, 2, 2),
        "decoder_layers_per_block": (0, 5, 10, 2, 2, 2, 2),
        "latent_channels": 128,
    },
    "f128c512": {
        **blocks(8),
        **widths(128, 256, 512, 512, 1024, 1024, 2048, 2048),
        **half_size(8),
        **scales(stages=8),
        "encoder_layers_per_block": (0, 4, 8, 2, 2, 2, 2, 2),
        "decoder_layers_per_block": (0, 5, 10, 2, 2, 2, 2, 2),
        "latent_channels": 512,
    },
}


@pytest.mark.parametrize("settings", PUBLISHED.values(), ids=PUBLISHED)
def test_the_published_models_have_their_weights(settings: dict[str, Any]) -> None:
    with torch.device("meta"):
        theirs, ours = Theirs(**settings), DCSettings(**settings)
        own = ours.build().state_dict()
    expected = {
        name: tensor.shape
        for name, tensor in theirs.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert {name: tensor.shape for name, tensor in ours.theirs(own).items()} == expected


def test_settings_that_config_json_leaves_out_are_those_of_the_class() -> None:
    with torch.device("meta"):
        own, theirs = DCSettings(), Theirs()
        found = own.theirs(own.build().state_dict())
    assert {k: v.shape for k, v in found.items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


CONV = "encoder.down_blocks.1.0.conv1.weight"


def renamed(weights: dict[str, Tensor]) -> None:
    weights["encoder.down_blocks.1.0.conv3.weight"] = weights.pop(CONV)


def missing(weights: dict[str, Tensor]) -> None:
    del weights["decoder.up_blocks.2.0.attn.to_q.weight"]


def without_statistics(weights: dict[str, Tensor]) -> None:
    del weights["decoder.up_blocks.1.1.norm.running_mean"]


def misshaped(weights: dict[str, Tensor]) -> None:
    weights["decoder.up_blocks.1.1.norm.running_var"] = torch.ones(17)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, r"down_blocks.1.0.conv1: weight is missing; .*1.0.conv3: weight is unknown$"),
        (missing, r": decoder.up_blocks.2.0.attn.to_q: weight is missing$"),
        (without_statistics, r": decoder.up_blocks.1.1.norm: running_mean is missing$"),
        (misshaped, r"up_blocks.1.1.norm: running_var is \[17\] instead of \[16\]$"),
    ],
)
def test_weights_that_differ_are_named(change: Any, message: str, tmp_path: Path) -> None:
    make_model(**IMAGENET).save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    change(weights)
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=message):
        AutoencoderDC().convert(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scaling_factor": -1.0}, r"scaling_factor must be above 0 and finite, got -1.0$"),
        ({"decoder_norm_types": "layer_norm"}, r"decoder_norm_types is 'layer_norm', but .* only"),
        ({"decoder_norm_types": "batch_norm"}, r"only be rms_norm for all stages of Efficient"),
        ({"decoder_norm_types": ["rms_norm"]}, r"decoder_norm_types is .* a word, or 3 of them$"),
        ({"decoder_act_fns": ["relu", "silu", "silu"]}, r"only be silu or .* all stages of ResBl"),
        ({"decoder_conv_act_fn": "gelu"}, r"decoder_conv_act_fn must be silu or relu, got 'gelu'$"),
        ({"encoder_block_types": "Conv"}, r"encoder_block_types is 'Conv', .* ResBlock or Effic"),
        ({"encoder_layers_per_block": [1, 1]}, r"encoder_layers_per_block is \[1, 1\], .* 3 num"),
        ({"encoder_qkv_multiscales": [[5]]}, r"encoder_qkv_multiscales is \[\[5\]\], .* 3 lists$"),
        ({"encoder_block_out_channels": [8, 12, 24]}, r"only be multiples of the first of them$"),
        ({"attention_head_dim": 5}, r"head_dim must divide the 32 channels"),
        ({"encoder_layers_per_block": [1, 1, 10**12]}, r"is 10{12}\d*|more than there are weights"),
        ({"gates": 1}, r"config.json: unknown key 'gates'"),
        ({"_class_name": "AutoencoderKL"}, r"is 'AutoencoderKL', not 'AutoencoderDC'$"),
    ],
)
def test_settings_that_ours_cannot_have_are_refused(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    make_model(**SANA).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises((CheckpointError, ConfigError), match=message):
        AutoencoderDC().convert(tmp_path)
