"""Times a VQGAN step as vqtrain makes it against the textbook's, with the same networks.

The textbook's step differentiates the reconstruction terms and the adversarial term once more for
the adaptive weight, and runs the discriminator three times. Both are run in turn, with random
weights; the medians are compared. Run: python scripts/benchmark_objective.py
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.autograd import grad

from vqtrain.codebooks.base import Quantized
from vqtrain.decoders.cnn import CNNDecoder
from vqtrain.discriminators.patchgan import PatchGAN
from vqtrain.layers.lpips import LPIPS
from vqtrain.losses.adversarial.hinge import Hinge
from vqtrain.losses.l1 import L1
from vqtrain.losses.lpips import LPIPSLoss
from vqtrain.losses.parts.adaptive_weight import AdaptiveWeight
from vqtrain.losses.parts.adversarial import AdversarialTraining, DiscriminatorSettings
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.objective import Objective, WeightedTerm
from vqtrain.tokenizer.reconstruction import Reconstruction


def weight(name: str, value: float) -> Weight:
    """Give a term one weight over the whole run."""
    return Weight(name=name, weight=value, start_step=0, ramp_steps=0)


class Step:
    """A decoder, its discriminator and the objective, on one batch."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with TemporaryDirectory() as folder:  # LPIPS of random weights
            file = Path(folder) / "vgg.pth"
            features = LPIPS(network="vgg").features.named_parameters()
            torch.save({f"features.{name}": p.normal_(0.0, 0.02) for name, p in features}, file)
            lpips = LPIPSLoss(
                network="vgg", weights={"vgg": str(file)}, in_channels=3, sample_size=(256, 256)
            )
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
            terms=[
                WeightedTerm(loss=loss, weight=weight(name, 1.0))
                for name, loss in (("reconstruction", L1()), ("perceptual", lpips))
            ],
            discriminator=PatchGAN(in_channels=3, channels=64, num_layers=3, norm="group"),
            adversarial=AdversarialTraining(
                loss=Hinge(),
                weight=AdaptiveWeight(
                    name="adversarial",
                    weight=0.8,
                    start_step=0,
                    ramp_steps=0,
                    adaptive=True,
                    min_ratio=0.0,
                    max_ratio=100.0,
                ),
                layer=None,
                settings=DiscriminatorSettings(
                    every=1,
                    augment=0.0,
                    cutout=0.0,
                    blur_steps=0,
                    lecam_weight=0.0,
                    lecam_decay=0.0,
                    r1_weight=0.0,
                    r1_every=1,
                    consistency_weight=0.0,
                ),
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
        output = Reconstruction(samples=self.decoder(self.z), quantized=quantized, latents=self.z)
        weight = self.decoder.last_layer.weight
        assert isinstance(weight, Tensor)
        terms = self.objective(self.images, output, {"adversarial": weight}, 1, is_last=True)
        adversarial = terms.balanced["adversarial"]
        assert adversarial.weight is not None
        (terms.total + adversarial.weight * adversarial.loss).backward()

    def textbook(self) -> None:
        """Make the same step by two more gradients and three calls of the discriminator."""
        discriminator, adversarial = self.objective.discriminator, self.objective.adversarial
        assert discriminator is not None
        decoded = self.decoder(self.z)
        terms = [
            t.weight.at(1) * t.loss(decoded, self.images) for t in self.objective.terms.values()
        ]
        compared = torch.stack(terms).sum()
        discriminator.requires_grad_(False)
        against = adversarial.generator(discriminator(decoded))
        weight = self.decoder.last_layer.weight
        assert isinstance(weight, Tensor)
        norms = [grad(term, weight, retain_graph=True)[0].norm() for term in (compared, against)]
        scale = 0.8 * (norms[0] / (norms[1] + 1e-4)).clamp(max=100.0)
        discriminator.requires_grad_(True)
        real, fake = discriminator(self.images), discriminator(decoded.detach())
        (compared + scale * against + adversarial.discriminator(real, fake)).backward()


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
