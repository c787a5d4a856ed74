"""The training steps that ``benchmark_step.py`` compares: vqtrain's, and those of other projects.

Each contender is a whole step, an update of the tokenizer and one of the discriminator, on one
batch. The other projects' networks, losses and optimizers are their own. Their perceptual networks
have random weights, as ours have: nothing is downloaded, and the time is the same.
"""

import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from itertools import pairwise
from types import ModuleType
from typing import Any, final
from unittest.mock import patch

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.autograd import grad

from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.planned import build_planned
from vqtrain.app.parts.settings import Settings
from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.training.speed import Until, time_batches


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A network that is measured.

    Attributes:
        experiment: Whose configuration it is.
        contenders: What is compared with ours.
        foreign_codebook: Words that put the codebook of vector-quantize-pytorch in place of ours.
    """

    experiment: str
    contenders: Sequence[str]
    foreign_codebook: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the contenders of a comparison have in common.

    Attributes:
        setting: One of ``SETTINGS``.
        is_adversarial: Whether the step has the adversarial part.
        precision: ``32-true`` or ``bf16-mixed``.
        image_size: Side of the images in px.
        batch_size: Images of a step.
        device: ``cpu`` or ``cuda``.
    """

    setting: str
    is_adversarial: bool
    precision: str
    image_size: int
    batch_size: int
    device: str

    @property
    def pixels(self) -> Tensor:
        """The batch, as a worker brings it: uint8 [b, 3, h, w], always the same."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, 3, self.image_size, self.image_size)
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8)

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context in which networks compute in the precision."""
        is_enabled = self.precision == "bf16-mixed"
        return torch.autocast(self.device, torch.bfloat16, enabled=is_enabled)

    def words(self, *more: str) -> list[str]:
        """Return the command line of a run of ours."""
        adversarial = "0" if self.is_adversarial else "99%"
        return [
            f"experiment={SETTINGS[self.setting].experiment}",
            "data.train=demo",
            f"data.image_size={self.image_size}",
            f"data.batch_size={self.batch_size}",
            f"trainer.accelerator={'cpu' if self.device == 'cpu' else 'gpu'}",
            f"trainer.precision={self.precision}",
            f"loss.adversarial.start_step={adversarial}",
            *more,
        ]


class Contender(ABC):
    """A network that trains."""

    @abstractmethod
    def turn(self, until: Until) -> list[float]:
        """Train until the seconds of the steps so far are enough, and return them."""


@final
class Ours(Contender):
    """The training step of vqtrain, in Lightning's loop.

    Args:
        case: What is measured.
        words: Of its command line, besides those of the case.
    """

    def __init__(self, case: Case, *words: str) -> None:
        config = compose("train", read_command_line(case.words(*words)))
        self.module = build_planned(config, Settings.of(config)).module
        self.module.codebook_is_new = False  # no start from data, which is no step
        self._pixels = case.pixels

    def turn(self, until: Until, *callbacks: Callback) -> list[float]:
        """Train, with more callbacks that look on."""
        return time_batches(self.module, self._pixels, until, callbacks)


class Foreign(Contender):
    """A step of another project: two updates, each after a pass of its own.

    Args:
        case: What is measured.
        networks: All of it.
    """

    def __init__(self, case: Case, networks: nn.Module) -> None:
        self.case, self.networks = case, networks.train()
        self._images = case.pixels.float() / 255

    def turn(self, until: Until) -> list[float]:
        """Train with new optimizers, as Lightning does for ours, and free the device."""
        self.networks.to(self.case.device)
        images = self._images.to(self.case.device)
        optimizers = self.optimizers()
        seconds: list[float] = []
        began = now(self.case.device)
        while not seconds or not until(seconds):
            self.step(images, optimizers)
            ended = now(self.case.device)
            seconds.append(ended - began)
            began = ended
        self.networks.zero_grad()
        self.networks.to("cpu")
        return seconds

    @abstractmethod
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Build the optimizers of the autoencoder and of the discriminator."""

    @abstractmethod
    def step(self, images: Tensor, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Update both networks on images [b, 3, h, w] in [0, 1]."""


def now(device: str) -> float:
    """Return the time at which the device has done all that it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@final
class Taming(Foreign):
    """The VQModel of taming-transformers, with its loss, as its Lightning module trains it.

    Each batch passes the autoencoder twice, once for each optimizer. Its loss computes the
    adversarial part from the first step on, with a factor of 0 before ``disc_start``.

    References:
        https://github.com/CompVis/taming-transformers, and configs/imagenet_vqgan.yaml there.
    """

    def __init__(self, case: Case) -> None:
        perceptual = import_module("taming.modules.losses.lpips")
        vgg16 = import_module("torchvision.models").vgg16
        loss = {
            "target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator",
            "params": {
                "disc_start": 0 if case.is_adversarial else sys.maxsize,
                "disc_weight": 0.8,
                "codebook_weight": 1.0,
            },
        }
        with (
            patch.object(perceptual.models, "vgg16", lambda pretrained: vgg16(weights=None)),  # noqa: ARG005
            patch.object(perceptual.LPIPS, "load_from_pretrained", lambda _self: None),
            redirect_stdout(StringIO()),
        ):
            model = taming_vqgan().VQModel(
                ddconfig={
                    "double_z": False,
                    "z_channels": 256,
                    "resolution": case.image_size,
                    "in_channels": 3,
                    "out_ch": 3,
                    "ch": 128,
                    "ch_mult": [1, 1, 2, 2, 4],
                    "num_res_blocks": 2,
                    "attn_resolutions": [case.image_size // 16],
                    "dropout": 0.0,
                },
                lossconfig=loss,
                n_embed=16384,
                embed_dim=256,
            )
        model.learning_rate = 4.5e-6 * case.batch_size
        model.log = model.log_dict = lambda *_values, **_settings: None
        super().__init__(case, model)
        self.model: Any = model

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Build its two optimizers."""
        optimizers, _ = self.model.configure_optimizers()
        return list(optimizers)

    def step(self, images: Tensor, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Make a pass for each optimizer, with the parameters of the other one frozen."""
        batch = {"image": images.permute(0, 2, 3, 1) * 2 - 1}
        for number, optimizer in enumerate(optimizers):
            for each in optimizers:
                for group in each.param_groups:
                    for parameter in group["params"]:
                        parameter.requires_grad_(each is optimizer)
            with self.case.autocast():
                loss = self.model.training_step(batch, 0, number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def taming_vqgan() -> ModuleType:
    """Import the module of VQModel, whose training script asks for a Lightning of 2021."""
    script = ModuleType("taming.main")

    def instantiate_from_config(config: Mapping[str, Any]) -> object:
        module, name = config["target"].rsplit(".", 1)
        return getattr(import_module(module), name)(**config["params"])

    script.instantiate_from_config = instantiate_from_config  # type: ignore[attr-defined]
    with patch.dict(sys.modules, {"taming.main": script}):
        module = import_module("taming.models.vqgan")
    # Its Lightning is another package, whose messages come to replace those of ours.
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return module


@final
class Diffusers(Foreign):
    """The VQModel of diffusers with the work of its example's loop.

    The example updates the autoencoder on one batch and the discriminator on the next, each after a
    pass through both. Here both updates are on the same batch, so that a step is of as much
    training of the tokenizer as ours. It has no setting without the adversarial part. Its
    perceptual network, a part of VGG19 at 224 px, is smaller than LPIPS, and not frozen.

    References:
        https://github.com/huggingface/diffusers, examples/vqgan: train_vqgan.py, discriminator.py.
    """

    def __init__(self, case: Case) -> None:
        model = import_module("diffusers").VQModel(
            block_out_channels=(128, 128, 256, 256, 512),
            down_block_types=(*["DownEncoderBlock2D"] * 4, "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 4),
            layers_per_block=2,
            latent_channels=256,
            num_vq_embeddings=16384,
            vq_embed_dim=256,
        )
        features = import_module("timm").create_model(
            "vgg19", pretrained=False, features_only=True, exportable=True, out_indices=[2]
        )
        networks = {"model": model, "judge": spectral_judge(), "features": features}
        super().__init__(case, nn.ModuleDict(networks))
        features.eval()
        self.model, self.judge, self.features = model, networks["judge"], features

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Build its two optimizers."""
        return [
            torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-2)
            for network in (self.model, self.judge)
        ]

    def step(self, images: Tensor, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Update the autoencoder, then the discriminator."""
        for network, optimizer, loss_of in zip(
            (self.model, self.judge),
            optimizers,
            (self.generator_loss, self.discriminator_loss),
            strict=True,
        ):
            optimizer.zero_grad()
            with self.case.autocast():
                loss = loss_of(images, *self.model(images, return_dict=False))
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

    def generator_loss(self, images: Tensor, decoded: Tensor, commitment: Tensor) -> Tensor:
        """Weigh the adversarial term by the gradients at the last layer."""
        perceptual = F.mse_loss(self.seen(decoded), self.seen(images))
        against = -self.judge(decoded).mean()
        last = self.model.decoder.conv_out.weight
        norms = [grad(term, last, retain_graph=True)[0].norm() for term in (perceptual, against)]
        weight = (norms[0] / norms[1].clamp(min=1e-8)).clamp(max=1e4)
        return F.mse_loss(decoded, images) + commitment + perceptual + weight * against

    def discriminator_loss(self, images: Tensor, decoded: Tensor, _commitment: Tensor) -> Tensor:
        """Return the hinge loss, with a penalty on gradients at the images."""
        shown = images.detach().requires_grad_()
        real, fake = self.judge(shown), self.judge(decoded.detach())
        (gradient,) = grad(real, shown, torch.ones_like(real), create_graph=True)
        penalty = 10 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        return (F.relu(1 + fake) + F.relu(1 - real)).mean() + penalty

    def seen(self, images: Tensor) -> Tensor:
        """Return the features that the perceptual loss compares."""
        mean, std = (
            images.new_tensor(values)[:, None, None]
            for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )
        (features,) = self.features((F.interpolate(images, 224) - mean) / std)
        return features


def spectral_judge() -> nn.Module:
    """Build a discriminator with the layers of the example's."""
    layers: list[nn.Module] = []
    for before, after in pairwise([3, 64, 128, 256, 512, 512, 512]):
        convolution = nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1)
        layers.append(nn.utils.spectral_norm(convolution))
        layers += [nn.InstanceNorm2d(after)] if before > 3 else []
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers, nn.Conv2d(512, 1, kernel_size=1), nn.Sigmoid())


@final
class VectorQuantizePyTorch(Codebook):
    """The codebook of vector-quantize-pytorch, with its defaults, as a part of ours.

    Args:
        size: Codes.
        dim: Channels of each.
        l2_normalize: Whether directions are compared.
    """

    num_codebooks = 1
    id_order, selection_rule = "as in the table", "nearest code"

    def __init__(self, *, size: int, dim: int, l2_normalize: bool = False) -> None:
        super().__init__()
        self.size, self.dim = size, dim
        self.table = import_module("vector_quantize_pytorch").VectorQuantize(
            dim=dim, codebook_size=size, use_cosine_sim=l2_normalize, accept_image_fmap=True
        )

    def forward(self, z: Tensor) -> Quantized:
        """Quantize; in train mode the codes move at once."""
        z_q, token_ids, loss = self.table(z)
        return Quantized(z_q=z_q, token_ids=token_ids[:, None], loss=loss.sum())

    def decode(self, token_ids: Tensor) -> Tensor:
        """Look codes up."""
        codes: Tensor = self.table.get_codes_from_indices(token_ids[:, 0].long())
        return codes.movedim(-1, 1)


# What each contender imports, so that its memory is told from that of its packages.
PACKAGES = {
    "taming": ("taming.modules.losses.lpips", "taming.modules.losses.vqperceptual", "torchvision"),
    "diffusers": ("diffusers.models.autoencoders.vq_model", "timm"),
    "vqp": ("vector_quantize_pytorch",),
}
TITLES = {
    "ours": "vqtrain",
    "taming": "taming-transformers",
    "diffusers": "diffusers' VQGAN example",
    "vqp": "vqtrain, codebook of vector-quantize-pytorch",
}


def foreign_codebook(*without: str) -> list[str]:
    """Put the other codebook in the place of ours, without keys that it does not have."""
    return [f"codebook={__name__}:VectorQuantizePyTorch", *(f"~codebook.{key}" for key in without)]


SETTINGS = {
    "vqgan_f16_16384": Setting(
        experiment="vqgan_f16_16384",
        contenders=["taming", "diffusers", "vqp"],
        foreign_codebook=foreign_codebook("codebook_weight", "commitment_weight", "restart_below"),
    ),
    "llamagen_vq16": Setting(
        experiment="llamagen_vq16",
        contenders=["vqp"],
        foreign_codebook=foreign_codebook("restart_below"),
    ),
    "vit": Setting(
        experiment="vitvqgan_small",
        contenders=["vqp"],
        foreign_codebook=foreign_codebook("restart_below"),
    ),
}


def build(who: str, case: Case) -> Contender:
    """Build a contender; raises ImportError if its package is not installed.

    Args:
        who: One of ``TITLES``, or words of a command line for a variant of ours.
        case: What is measured.
    """
    torch.manual_seed(0)
    foreign: dict[str, Callable[[Case], Contender]] = {"taming": Taming, "diffusers": Diffusers}
    if who in foreign:
        return foreign[who](case)
    if who == "vqp":
        return Ours(case, *SETTINGS[case.setting].foreign_codebook)
    return Ours(case, *(() if who == "ours" else who.split()))
