"""latent-diffusion, whose first stages are made of the classes of taming-transformers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vqtrain.errors import CheckpointError
from vqtrain.formats.latent_diffusion import LatentDiffusion

Weights = dict[str, Tensor]


def save(weights: Weights, tmp_path: Path) -> Path:
    torch.save({"state_dict": weights, "global_step": 7}, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def with_averages(weights: Weights, averages: Weights) -> Weights:
    """Add averages as LitEma stores them: names without dots, of what has a gradient."""
    stored = {f"model_ema.{name.replace('.', '')}": item for name, item in averages.items()}
    counters = {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(3)}
    return {**weights, **stored, **counters}


@torch.no_grad()
def test_ids_and_pixels_are_those_of_the_original(vqgan, images, tmp_path):
    model = vqgan(z_channels=4, dim=3)
    z_q, loss, (_, _, ids) = model.quantize(model.latents(images))
    tokenizer = LatentDiffusion().convert(save(model.state_dict(), tmp_path))
    assert tokenizer.encode(images).flatten().tolist() == ids.tolist()
    expected = model.decode(z_q)
    torch.testing.assert_close(tokenizer(images).samples, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokenizer(images).quantized.loss, loss)


def test_the_first_stage_is_taken_out_of_a_diffusion_model(vqgan, images, tmp_path):
    model = vqgan()
    alone = LatentDiffusion().convert(save(model.state_dict(), tmp_path))
    weights = {f"first_stage_model.{name}": item for name, item in model.state_dict().items()}
    weights |= {"model.diffusion_model.out.0.weight": torch.ones(2), "betas": torch.ones(5)}
    weights |= {"model_ema.diffusion_modelout0weight": torch.ones(2)}
    inside = LatentDiffusion().convert(save(weights, tmp_path))
    assert torch.equal(inside.encode(images), alone.encode(images))


@pytest.mark.parametrize("ema", [True, False])
def test_averages_are_used_if_they_are_there(vqgan, tmp_path, ema):
    weights, averages = vqgan().state_dict(), vqgan().state_dict()
    weights["loss.discriminator.main.0.weight"] = torch.zeros(2)
    averages["loss.discriminator.main.0.weight"] = torch.zeros(2)
    tokenizer = LatentDiffusion(ema=ema).convert(save(with_averages(weights, averages), tmp_path))
    chosen = averages if ema else weights
    for ours, theirs in (
        ("encoder.conv_in.weight", "encoder.conv_in.weight"),
        ("project_out.bias", "post_quant_conv.bias"),
        ("codebook.vectors", "quantize.embedding.weight"),
    ):
        assert torch.equal(tokenizer.state_dict()[ours], chosen[theirs])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda averages: averages.pop("encoder.conv_in.bias"),
            "model_ema.encoderconv_inbias is missing",
        ),
        (
            lambda averages: averages.update(surplus=torch.zeros(1)),
            "model_ema.surplus is unknown",
        ),
        (
            lambda averages: averages.update({"quant_conv.bias": torch.zeros(2)}),
            r"quant_conv.bias is \[2\] instead of \[8\]",
        ),
    ],
)
def test_averages_that_do_not_fit_are_named(
    vqgan: Callable[..., torch.nn.Module],
    tmp_path: Path,
    edit: Callable[[Weights], object],
    said: str,
) -> None:
    weights, averages = vqgan().state_dict(), vqgan().state_dict()
    edit(averages)
    with pytest.raises(CheckpointError, match=said):
        LatentDiffusion().convert(save(with_averages(weights, averages), tmp_path))
