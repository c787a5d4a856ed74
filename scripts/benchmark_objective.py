"""Times a VQGAN step as vqtrain makes it against the textbook's, with the same networks.

The textbook's step differentiates the likeness and the adversarial term once more for the adaptive
weight, and runs the discriminator three times. Both are run in turn, with random weights; the
medians are compared. Run: python scripts/benchmark_objective.py
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.autograd import grad

from vqtrain.codebooks.base import Quantized
from vqtrain.decoders.cnn import CNNDecoder
from vqtrain.discriminators.patchgan import PatchGAN
from vqtrain.layers.lpips import LPIPS
from vqtrain.losses.adversarial import AdversarialLoss
from vqtrain.losses.perceptual import PerceptualLoss
from vqtrain.losses.reconstruction import ReconstructionLoss
from vqtrain.objective import Objective
from vqtrain.tokenizer.model import Reconstruction


class Step:
    """A decoder, its discriminator and the objective, on one batch."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        lpips = LPIPS(network="vgg")
        for parameter in lpips.parameters():
            parameter.normal_(0.0, 0.02)
        self.decoder = CNNDecoder(
            out_channels=3,
            channels=arguments.channels,
            multipliers=[1, 1, 2, 2, 4],
            num_blocks=2,
            attention_factors=[16],
            latent_channels=256,
            dropout=0.0,
        ).to(device)
        self.objective = Objective(
            reconstruction=ReconstructionLoss(l1=1.0, l2=0.0, weight=1.0),
            perceptual=PerceptualLoss(network=lpips, weight=1.0),
            discriminator=PatchGAN(in_channels=3, channels=64, num_layers=3, norm="group"),
            adversarial=AdversarialLoss(
                kind="hinge",
                weight=0.8,
                adaptive=True,
                max_ratio=100.0,
                start_step=0,
                ramp_steps=0,
            ),
        ).to(device)
        side = arguments.image_size
        self.images = torch.rand(arguments.batch_size, 3, side, side, device=device) * 2 - 1
        self.z = torch.randn(arguments.batch_size, 256, side // 16, side // 16, device=device)

    def ours(self) -> None:
        """Make a step by the objective."""
        quantized = Quantized(
            z_q=self.z,
            token_ids=torch.zeros(1, 1, 1, 1, dtype=torch.int64),
            loss=torch.zeros((), device=self.z.device),
        )
        output = Reconstruction(images=self.decoder(self.z), quantized=quantized, latents=self.z)
        weight = self.decoder.last_layer.weight
        assert isinstance(weight, Tensor)
        self.objective(self.images, output, weight, 1).total.backward()
        self.objective.adversarial.update(1)

    def textbook(self) -> None:
        """Make the same step by two more gradients and three calls of the discriminator."""
        discriminator, adversarial = self.objective.discriminator, self.objective.adversarial
        assert discriminator is not None
        assert self.objective.perceptual is not None
        made = self.decoder(self.z)
        likeness = self.objective.reconstruction(made, self.images)
        likeness = likeness + self.objective.perceptual(made, self.images)
        discriminator.requires_grad_(False)
        game = adversarial.generator(discriminator(made))
        weight = self.decoder.last_layer.weight
        assert isinstance(weight, Tensor)
        norms = [grad(term, weight, retain_graph=True)[0].norm() for term in (likeness, game)]
        scale = 0.8 * (norms[0] / (norms[1] + 1e-4)).clamp(max=100.0)
        discriminator.requires_grad_(True)
        real, fake = discriminator(self.images), discriminator(made.detach())
        (likeness + scale * game + adversarial.discriminator(real, fake)).backward()


def seconds(step: Callable[[], None], modules: list[nn.Module]) -> float:
    """Time one step."""
    for module in modules:
        module.zero_grad()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Time both in turn, and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--channels", type=int, default=32, help="of the decoder; the paper has 128"
    )
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    step = Step(arguments)
    modules: list[nn.Module] = [step.decoder, step.objective]
    times: dict[str, list[float]] = {"ours": [], "textbook": []}
    for number in range(arguments.rounds + 2):
        for name, make in (("ours", step.ours), ("textbook", step.textbook)):
            taken = seconds(make, modules)
            if number >= 2:  # the first ones warm up
                times[name].append(taken)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    for name, taken in times.items():
        print(f"{name:<9} median {median(taken) * 1000:.1f} ms, least {min(taken) * 1000:.1f} ms")
    ratio = median(times["ours"]) / median(times["textbook"])
    print(f"ours / textbook: {ratio:.3f} on {device}")


if __name__ == "__main__":
    main()
