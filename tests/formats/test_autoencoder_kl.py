"""diffusers' own AutoencoderKL, with random weights, against ours."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL as Theirs
from safetensors.torch import load_file, save_file
from torch import Tensor

from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.formats.autoencoder_kl import AutoencoderKL

WEIGHTS = "diffusion_pytorch_model.safetensors"
DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
# Of latents, as the published models have them: one of 4 channels and one of 16 without
# projections; and statistics of each channel.
STABLE = {"scaling_factor": 0.18215}
FLUX = {"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159}
FLUX |= {"use_quant_conv": False, "use_post_quant_conv": False}
STATISTICS = {"scaling_factor": 0.5, "latents_mean": [-1.6, 1.2, 0.3, 0.0]}
STATISTICS |= {"latents_std": [8.4, 5.9, 6.3, 3.9]}
VARIANTS = {"stable": STABLE, "flux": FLUX, "statistics": STATISTICS}
# What the published models say, and their parameters in diffusers.
LEVELS = {"down_block_types": [DOWN] * 4, "up_block_types": [UP] * 4, "layers_per_block": 2}
LEVELS |= {"block_out_channels": [128, 256, 512, 512]}


def make_model(**settings: Any) -> Theirs:
    """A model of two levels whose weights all differ from each other."""
    two = {"down_block_types": (DOWN,) * 2, "up_block_types": (UP,) * 2}
    model = Theirs(**two, block_out_channels=(32, 64), sample_size=16, **settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def scaled(latents: Tensor, settings: dict[str, Any]) -> Tensor:
    """What the pipelines of diffusers make of latents before a diffusion model sees them."""
    if "latents_mean" in settings:
        mean, std = (
            torch.tensor(settings[f"latents_{name}"]).view(1, -1, 1, 1) for name in ("mean", "std")
        )
        return (latents - mean) * settings["scaling_factor"] / std
    return (latents - settings.get("shift_factor", 0.0)) * settings["scaling_factor"]


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_latents_and_pixels_are_those_of_the_original(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    model = make_model(**settings)
    model.save_pretrained(tmp_path)
    tokenizer = AutoencoderKL().convert(tmp_path)
    for images in (torch.rand(2, 3, 16, 16) * 2 - 1, torch.rand(1, 3, 8, 24) * 2 - 1):
        posterior = model.encode(images).latent_dist
        moments = tokenizer.latents(images)
        means, log_variances = moments.chunk(2, 1)
        expected = scaled(posterior.mean, settings)
        torch.testing.assert_close(means, expected, rtol=1e-5, atol=1e-5)
        # Variances are those of scaled samples.
        spread = scaled(posterior.mean + posterior.std, settings) - expected
        torch.testing.assert_close((log_variances / 2).exp(), spread, rtol=1e-4, atol=1e-5)
        z_q = tokenizer.quantize(moments).z_q
        assert torch.equal(z_q, means)
        theirs = model.decode(posterior.mean).sample
        ours = tokenizer.decode_latents(z_q)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_scale_and_shift_are_remembered(tmp_path: Path) -> None:
    make_model(**FLUX).save_pretrained(tmp_path / "flux")
    summary = AutoencoderKL().convert(tmp_path / "flux").training_summary
    assert summary == {"image_size": 16, "latents": {"scale": 0.3611, "shift": 0.1159}}
    make_model(**STATISTICS).save_pretrained(tmp_path / "statistics")
    latents = AutoencoderKL().convert(tmp_path / "statistics").training_summary["latents"]
    assert latents == {
        "scale": [0.5 / std for std in STATISTICS["latents_std"]],
        "shift": STATISTICS["latents_mean"],
    }


def test_half_precision_alone_is_read_as_float32(tmp_path: Path) -> None:
    make_model().half().save_pretrained(tmp_path, variant="fp16")
    assert not (tmp_path / WEIGHTS).exists()
    tokenizer = AutoencoderKL().convert(tmp_path)
    assert {tensor.dtype for tensor in tokenizer.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"latent_channels": 4}, 83_653_863),  # Stable Diffusion 1.5 and SDXL
        (
            {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
            83_819_683,  # Stable Diffusion 3 and FLUX.1
        ),
    ],
)
def test_the_published_models_have_their_parameters(
    settings: dict[str, Any], parameters: int
) -> None:
    from vqtrain.formats.autoencoder_kl import KLSettings

    with torch.device("meta"):
        theirs, ours = Theirs(**LEVELS, **settings), KLSettings(**LEVELS, **settings).build()
    assert sum(tensor.numel() for tensor in theirs.parameters()) == parameters
    z = settings["latent_channels"]
    # Projections that only pass latents on are ours alone.
    identity = 0 if settings.get("use_quant_conv", True) else 2 * z * (2 * z + 1) + z * (z + 1)
    assert sum(tensor.numel() for tensor in ours.parameters()) == parameters + identity


CONV = "decoder.up_blocks.1.resnets.0.conv1.weight"


def renamed(weights: dict[str, Tensor]) -> None:
    weights["decoder.up_blocks.1.resnets.0.conv3.weight"] = weights.pop(CONV)


def missing(weights: dict[str, Tensor]) -> None:
    del weights["quant_conv.bias"]


def misshaped(weights: dict[str, Tensor]) -> None:
    weights["post_quant_conv.weight"] = torch.zeros(4, 5, 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, r"up_blocks.1.resnets.0.conv1: weight is missing; .*0.conv3: weight is unknown$"),
        (missing, r": quant_conv: bias is missing$"),
        (misshaped, r": post_quant_conv: weight is \[4, 5, 1, 1\] instead of \[4, 4, 1, 1\]$"),
    ],
)
def test_weights_that_differ_are_named(change: Any, message: str, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    change(weights)
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=message):
        AutoencoderKL().convert(tmp_path)


def test_projections_are_unknown_where_the_settings_say_there_are_none(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "use_quant_conv": False}))
    with pytest.raises(CheckpointError, match=r"quant_conv: .*weight is unknown"):
        AutoencoderKL().convert(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scaling_factor": 0}, r"scaling_factor must be above 0 and finite, got 0$"),
        ({"shift_factor": math.inf}, r"shift_factor must be finite or null, got inf$"),
        ({"latents_mean": [0.0, 1.0]}, r"shifts of 2 channels, but there are 4$"),
        ({"latents_std": [1.0, 0.0, 1.0, 1.0]}, r"latents_std must be .*above 0 and finite"),
        ({"block_out_channels": [64, 96]}, r"block_out_channels is \[64, 96\], but .* multiples"),
        ({"latent_channels": 0}, r"must be at least 1, got 0"),
        ({"mid_block_add_attention": False}, r"mid_block_add_attention is False, .* be true$"),
        ({"motion": 1}, r"config.json: unknown key 'motion'"),
        ({"_class_name": "AutoencoderTiny"}, r"is 'AutoencoderTiny', not 'AutoencoderKL'$"),
    ],
)
def test_settings_that_ours_cannot_have_are_refused(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    make_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises((CheckpointError, ConfigError), match=message):
        AutoencoderKL().convert(tmp_path)
