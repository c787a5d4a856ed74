"""The likelihood of pixels against torch's own distributions."""

import pytest
import torch
from torch.distributions import Laplace, SigmoidTransform, TransformedDistribution

from vqtrain.app.parts.build import build_module
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.settings import Settings
from vqtrain.errors import ConfigError
from vqtrain.losses.logit_laplace import LogitLaplace
from vqtrain.training.module import TokenizerTraining

SMALL = ["encoder.channels=4", "decoder.channels=4", "decoder.latent_channels=5"]
SMALL += [f"{part}.multipliers=[1,2]" for part in ("encoder", "decoder")]
RUN = ["codebook=fsq", "codebook.size=16", "data.image_size=16", "trainer.accelerator=cpu"]


def test_value_and_gradient_are_those_of_the_density() -> None:
    samples = torch.rand(2, 3, 4, 5, dtype=torch.float64) * 2 - 1
    samples[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])
    mean = torch.randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    log_scales = torch.randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    density = TransformedDistribution(Laplace(mean, log_scales.exp()), [SigmoidTransform()])
    expected = -density.log_prob(0.8 * (samples + 1) / 2 + 0.1).mean()
    reconstructions = (torch.sigmoid(mean) - 0.1) / 0.8 * 2 - 1
    loss = LogitLaplace(in_channels=3)
    found = loss(reconstructions, samples, log_scales)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(y, [mean, log_scales]) for y in (found, expected)]
    torch.testing.assert_close(*gradients)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = loss(*(each.float() for each in (reconstructions, samples, log_scales)))
    torch.testing.assert_close(narrow, expected.float())
    # Where the sigmoid is 1 in float32, there is no gradient, and no NaN.
    edge = torch.tensor([[[1.25]]], requires_grad=True)
    LogitLaplace(in_channels=1)(edge, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)).backward()
    assert edge.grad is not None
    assert edge.grad.item() == 0


def module(*words: str) -> TokenizerTraining:
    config = compose("train", read_command_line([*RUN, *words]))
    return build_module(config, Settings.of(config))


def test_the_objective_trains_the_scales_and_nothing_else_sees_them() -> None:
    words = ["encoder=dvae", "decoder=dvae", *SMALL, "loss/reconstruction=logit_laplace"]
    made = module(*words, "+loss/reconstruction@loss.pixels=l2", "loss.pixels.weight=0.3").double()
    tokenizer, images = made.tokenizer, torch.rand(2, 3, 16, 16, dtype=torch.float64) * 2 - 1
    weight = tokenizer.decoder.last_layer.weight

    def whole() -> torch.Tensor:
        return tokenizer.decoder(tokenizer.project_out(tokenizer.quantize(latents()).z_q))

    def latents() -> torch.Tensor:
        return tokenizer.project_in(tokenizer.encoder(images))

    both = whole()
    assert both.shape == (2, 6, 16, 16)
    found, log_scales = both.chunk(2, dim=1)
    expected = LogitLaplace(in_channels=3)(found, images, log_scales)
    expected = expected + 0.3 * (found - images).square().mean()
    output = tokenizer(images)
    assert torch.equal(output.samples, found)
    terms = made.objective(images, output, {"adversarial": weight}, 0, is_last=True)
    torch.testing.assert_close(terms.total, expected + output.quantized.loss)
    parameters = [p for p in tokenizer.parameters() if p.requires_grad]
    torch.testing.assert_close(
        torch.autograd.grad(terms.total, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
    )
    tokenizer.eval()
    ids = tokenizer.encode(images)
    assert tokenizer.decode(ids).shape == (2, 3, 16, 16)
    assert tokenizer.decode(ids, tile=16).shape == (2, 3, 16, 16)
    assert tokenizer.reconstruct(images).shape == (2, 3, 16, 16)


def test_a_decoder_without_scales_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^loss.reconstruction needs a decoder that gives 3 channels besides those of a "
        r"sample, as decoder=dvae does; this one gives none$",
    ):
        module("loss/reconstruction=logit_laplace")
