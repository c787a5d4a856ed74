"""Four batches of two images make the very step that one batch of eight makes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.autograd import grad

from vqtrain.build import configs_folder
from vqtrain.cli import main
from vqtrain.codebooks.base import Quantized
from vqtrain.discriminators.patchgan import PatchGAN
from vqtrain.losses.l1 import L1
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.objective import Objective, WeightedTerm, build_adversarial
from vqtrain.tokenizer.reconstruction import Reconstruction
from vqtrain.training.accumulation import Accumulation
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.window import Window

SETTINGS = [
    "trainer.precision=64-true",
    "trainer.max_steps=50",
    "trainer.log_every=10",
    "trainer.validate_every=25",
    "trainer.checkpoint_every=50",
    "codebook.decay=0.8",
    "optim.lr=3.0e-3",
]
ADVERSARIAL = [
    "discriminator=patchgan",
    "loss.discriminator.lecam_weight=0.1",
    "loss.discriminator.augment=0.5",
    "loss.discriminator.r1_weight=0.1",
    "loss.discriminator.r1_every=4",
    "discriminator.channels=4",
    "discriminator.num_layers=1",
    "loss.adversarial.start_step=20",
    "loss.adversarial.ramp_steps=5",
    "loss.adversarial.weight=0.5",
]
BALANCED = [
    "loss.balancer.enabled=true",
    "loss.balancer.decay=0.9",
    "loss/squared=l2",
    "loss.squared.start_step=20",
    "loss.squared.weight=0.5",
]


class Networks:
    """An encoder and a decoder of one convolution each, and a discriminator, all in float64."""

    def __init__(self, *, adaptive: bool) -> None:
        torch.manual_seed(1)
        self.images = torch.randn(6, 3, 8, 8).double()
        self.encoder, self.decoder = (nn.Conv2d(3, 3, 3, padding=1).double() for _ in range(2))
        self.parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        file = configs_folder() / "loss/discriminator/default.yaml"
        settings = yaml.safe_load(file.read_text())
        bounds = {"layer": None, "min_ratio": 0.0, "max_ratio": 1e4}
        group = {"kind": "vanilla", "weight": 0.5, "adaptive": adaptive, **bounds}
        self.objective = Objective(
            terms=[
                WeightedTerm(
                    loss=L1(),
                    weight=Weight(name="reconstruction", weight=1.0, start_step=0, ramp_steps=0),
                )
            ],
            discriminator=PatchGAN(in_channels=3, channels=4, num_layers=1, norm="group"),
            adversarial=build_adversarial(
                {**group, "start_step": 0, "ramp_steps": 0}, settings, {}
            ),
        ).double()

    def output(self, images: Tensor) -> Reconstruction:
        """Reconstruct images."""
        latents = self.encoder(images)
        ids = torch.zeros(len(images), 1, 1, 1, dtype=torch.int64)
        quantized = Quantized(z_q=latents, token_ids=ids, loss=latents.square().mean())
        return Reconstruction(samples=self.decoder(latents), quantized=quantized, latents=latents)


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize(("batches", "scale"), [(1, 1.0), (3, 4096.0)])
def test_the_gradient_of_a_step_is_that_of_the_joined_batch(
    batches: int, scale: float, adaptive: bool
) -> None:
    networks = Networks(adaptive=adaptive)
    objective, images = networks.objective, networks.images
    # By plain autograd: the joined batch, differentiated once for the weight and once for all.
    output = networks.output(images)
    assert objective.discriminator is not None
    compared = (output.samples - images).abs().mean()
    adversarial = objective.adversarial.generator(objective.discriminator(output.samples))
    last = networks.decoder.weight
    norms = [grad(term, last, retain_graph=True)[0].norm() for term in (compared, adversarial)]
    weight = 0.5 * norms[0] / (norms[1] + 1e-4) if adaptive else 0.5
    loss = compared + weight * adversarial + output.quantized.loss
    at_latents, *expected = grad(loss, [output.latents, *networks.parameters], retain_graph=True)

    accumulation = Accumulation(networks.parameters, batches)
    for number, batch in enumerate(images.chunk(batches), start=1):
        part = networks.output(batch)
        is_last = number == batches
        terms = objective(batch, part, {"adversarial": last}, 0, is_last=is_last, scale=scale)
        assert bool(terms.is_finite())
        accumulation.add(terms, part, Tensor.backward, torch.tensor(scale))
    found = [parameter.grad / scale for parameter in networks.parameters]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)

    accumulation.report(window := Window(num_codebooks=1, size=1))
    means = window.means()
    assert means["train/generator/adversarial"] == pytest.approx((weight * adversarial).item())
    assert means["train/generator/total"] == pytest.approx(loss.item())
    # The mean over six images of the norm of an image's own gradient.
    own = 6 * at_latents.flatten(1).norm(dim=1).mean()
    assert means["train/codebook/encoder_gradient"] == pytest.approx(own.item())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_share_is_what_the_weight_asks_for_at_every_step(
    accumulate: int, make_module: Callable[..., TokenizerTraining], fit: Callable[..., None]
) -> None:
    adversarial = {"weight": 0.5, "start_step": 2, "max_ratio": 1e6}
    module = make_module(adversarial=adversarial, accumulate=accumulate, max_steps=8)
    lines: list[dict[str, float]] = []

    def note(trainer: Trainer, training: TokenizerTraining) -> None:
        del trainer
        lines.append(training.logged_metrics())

    fit(module, note)
    assert ["train/adversarial/share" in line for line in lines] == [False] * 2 + [True] * 6
    for line in lines[2:]:
        norm = line["train/adversarial/gradient"]
        weighted = 0.5 * norm / (norm + 1e-4)  # relative to the reconstruction gradient
        share = weighted / (1 + weighted)
        assert line["train/adversarial/share"] == pytest.approx(share, rel=1e-5)
        assert 0.2 < share < 1 / 3


def train(tmp_path: Path, name: str, words: list[str]) -> tuple[dict[str, torch.Tensor], list]:
    run = tmp_path / name
    assert main(["train", *words, f"run_dir={run}"]) == 0
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = {
        **checkpoint["training"]["weights"],
        **{f"average.{name}": value for name, value in checkpoint["tokenizer"]["weights"].items()},
    }
    return weights, lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "restart_below", "loss"),
    [("vqvae", 0.5, ADVERSARIAL), ("latent_query", 0.0, BALANCED)],
    ids=["vqvae-restarts-adversarial", "latent_query-balanced"],
)
def test_accumulated_batches_equal_one_batch(
    network: str,
    restart_below: float,
    loss: list[str],
    tiny_of: Callable[[str], list[str]],
    tmp_path: Path,
) -> None:
    words = [*tiny_of(network), *SETTINGS, f"codebook.restart_below={restart_below}", *loss]
    one, one_lines = train(tmp_path, "one", [*words, "data.batch_size=8"])
    split, split_lines = train(
        tmp_path, "split", [*words, "data.batch_size=2", "trainer.accumulate=4"]
    )
    for name, expected in one.items():
        torch.testing.assert_close(split[name], expected, rtol=0, atol=1e-9, msg=name)
    assert ("train/adversarial/share" in one_lines[-1]) == (loss == ADVERSARIAL)
    for a, b in zip(one_lines, split_lines, strict=True):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-9)
    if restart_below > 0:  # which really happens in that run
        never = [*words, "data.batch_size=8", "codebook.restart_below=0.0"]
        weights, _ = train(tmp_path, "never", never)
        assert not torch.allclose(one["codebook.vectors"], weights["codebook.vectors"])


@pytest.mark.slow
def test_each_part_of_the_tokenizer_is_trained(tiny: list[str], tmp_path: Path) -> None:
    before, _ = train(
        tmp_path, "before", [*tiny, "codebook=vq", "codebook.size=16", "optim.lr=1e-20"]
    )
    after, _ = train(tmp_path, "after", [*tiny, "codebook=vq", "codebook.size=16", "optim.lr=1e-2"])
    for name in before:
        assert not torch.equal(before[name], after[name]), name
