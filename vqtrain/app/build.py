"""From a composed configuration to the objects of a run, checked before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from vqtrain.build import bind, build_part, resolve_fractions
from vqtrain.data.decoding.images import Transform, decode_image
from vqtrain.data.settings import DataSettings
from vqtrain.data.sources.find import training_and_validation
from vqtrain.data.sources.index import ImageIndex
from vqtrain.discriminators.base import Discriminator
from vqtrain.errors import BadSampleError, ConfigError, DataError
from vqtrain.layers.lpips import LPIPS, load_lpips
from vqtrain.losses.adversarial import AdversarialLoss
from vqtrain.losses.perceptual import PerceptualLoss
from vqtrain.losses.reconstruction import ReconstructionLoss
from vqtrain.metrics.fid import FID, load_inception
from vqtrain.metrics.lpips import LPIPSDistance
from vqtrain.objective import Objective
from vqtrain.ops.seeds import seed_torch
from vqtrain.optim.settings import DiscriminatorOptimSettings, OptimSettings
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.checkpoints import TrainingCheckpoint
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.settings import LPIPS_NETWORKS, MetricsSettings, TrainerSettings
from vqtrain.training.validation import MEASURES, Measure, Validation

# Images that need more pixels than this are not searched for.
LARGEST_LEAST_SIZE = 256

# If so many images cannot be read, it is their kind or a setting.
MAX_TRIED = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The config groups that are not modules, checked; shares of the run are steps."""

    data: DataSettings
    optim: OptimSettings
    discriminator: DiscriminatorOptimSettings
    trainer: TrainerSettings
    metrics: MetricsSettings

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Settings":
        """Check and bind the groups of a composed configuration."""
        max_steps, seed = config["trainer"]["max_steps"], config["seed"]
        if not isinstance(max_steps, int) or isinstance(max_steps, bool):
            raise ConfigError(f"trainer.max_steps must be a whole number, got {max_steps!r}")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ConfigError(f"seed must be a whole number, got {seed!r}")
        resolved: dict[str, Any] = resolve_fractions(config, max_steps)
        optim = dict(resolved["optim"])
        discriminator = optim.pop("discriminator")
        return cls(
            data=bind(DataSettings, resolved["data"], where="data"),
            optim=bind(OptimSettings, optim, where="optim"),
            discriminator=bind(
                DiscriminatorOptimSettings, discriminator, where="optim.discriminator"
            ),
            trainer=bind(TrainerSettings, resolved["trainer"], where="trainer"),
            metrics=bind(MetricsSettings, resolved["metrics"], where="metrics"),
        )


def build_module(config: Mapping[str, Any], settings: Settings) -> TokenizerTraining:
    """Build the tokenizer and its objective, and check that images fit them."""
    seed_torch(config["seed"], "weights")
    resolved: dict[str, Any] = resolve_fractions(config, settings.trainer.max_steps)
    parts = {name: split_kind(resolved[name]) for name in ("encoder", "codebook", "decoder")}
    data = settings.data
    tokenizer = Tokenizer(**parts, channels=data.channels, pixel_range=data.pixel_range)
    size = data.image_size
    if size % tokenizer.downsampling:
        lower = size - size % tokenizer.downsampling
        near = [str(n) for n in (lower, lower + tokenizer.downsampling) if n > 0]
        raise ConfigError(
            f"data.image_size must be a multiple of the encoder's downsampling, "
            f"{tokenizer.downsampling}; got {size}, nearest are {' and '.join(near)}"
        )
    tokenizer.token_shape(size, size)  # refuses a grid that the codebook does not take
    if "ssim" in settings.metrics.names and size < 11:
        raise ConfigError(f"data.image_size must be at least 11 for ssim, got {size}")
    check_shapes(tokenizer)
    check_warmup(settings.optim, settings.trainer.max_steps, "trainer.max_steps")
    return TokenizerTraining(
        tokenizer=tokenizer,
        objective=build_objective(resolved, settings),
        trainer_settings=settings.trainer,
        optim_settings=settings.optim,
        discriminator_settings=settings.discriminator,
        seed=config["seed"],
    )


def build_objective(config: Mapping[str, Any], settings: Settings) -> Objective:
    """Build what is minimized; finds the weights of the perceptual network."""
    loss = config["loss"]
    reconstruction = bind(ReconstructionLoss, loss["reconstruction"], where="loss.reconstruction")
    adversarial = bind(AdversarialLoss, loss["adversarial"], where="loss.adversarial")
    discriminator = build_discriminator(config, settings, adversarial)

    def load_perceptual(*, weight: float, network: str) -> PerceptualLoss | None:
        if weight == 0:
            return None
        if network not in LPIPS_NETWORKS:
            raise ConfigError(
                f"loss.perceptual.network must be one of {', '.join(LPIPS_NETWORKS)}, "
                f"got {network!r}"
            )
        return PerceptualLoss(network=find_lpips(network, config, settings), weight=weight)

    return Objective(
        reconstruction=reconstruction,
        perceptual=bind(load_perceptual, loss["perceptual"], where="loss.perceptual"),
        discriminator=discriminator,
        adversarial=adversarial,
    )


def check_warmup(settings: OptimSettings, steps: int, what: str) -> None:
    """Refuse a warm-up that does not fit into the steps in which a network moves."""
    if settings.warmup_steps > steps:
        raise ConfigError(
            f"{settings.key}.warmup_steps must be at most {steps} ({what}), got "
            f'{settings.warmup_steps}; a share such as "5%" fits every run'
        )


def find_lpips(network: str, config: Mapping[str, Any], settings: Settings) -> LPIPS:
    """Build the LPIPS network with its weights, if the run's images fit it."""
    check_color("LPIPS", settings)
    found = load_lpips(network, config["weights"].get(network))
    if settings.data.image_size < found.min_size:
        raise ConfigError(
            f"data.image_size must be at least {found.min_size} for LPIPS with {network}, got "
            f"{settings.data.image_size}"
        )
    return found


def check_color(what: str, settings: Settings) -> None:
    """Refuse images that networks trained on color pictures cannot judge."""
    if settings.data.channels not in (1, 3):
        raise ConfigError(
            f"{what} takes images of 1 or 3 channels, got data.channels={settings.data.channels}; "
            "loss/perceptual=none and metrics=basic do without"
        )


def build_discriminator(
    config: Mapping[str, Any], settings: Settings, adversarial: AdversarialLoss
) -> Discriminator | None:
    """Build the discriminator, if there is one, and check that the run and its images fit it."""
    specification = split_kind(config["discriminator"])
    if specification["kind"] == "none":
        return None
    seed_torch(config["seed"], "discriminator")
    discriminator = cast(Discriminator, build_part("discriminator", specification))
    steps = settings.trainer.max_steps - adversarial.start_step
    if steps <= 0:
        raise ConfigError(
            f"loss.adversarial.start_step must be below trainer.max_steps "
            f"({settings.trainer.max_steps}), got {adversarial.start_step}; a share such as "
            '"50%" fits every run, and discriminator=none does without'
        )
    check_warmup(settings.discriminator, steps, "the steps from loss.adversarial.start_step on")
    data = settings.data
    if data.batch_size < discriminator.least_batch_size:
        raise ConfigError(
            f"data.batch_size must be at least {discriminator.least_batch_size} for this "
            f"discriminator, got {data.batch_size}; discriminator.norm=group takes any"
        )
    if not judges(discriminator, data.channels, data.image_size):
        sizes = range(data.image_size, LARGEST_LEAST_SIZE)
        least = next((n for n in sizes if judges(discriminator, data.channels, n)), "more")
        raise ConfigError(
            f"data.image_size must be at least {least} for this discriminator, got "
            f"{data.image_size}; with discriminator.num_layers=1 it takes smaller images"
        )
    return discriminator


@torch.no_grad()
def judges(discriminator: Discriminator, channels: int, image_size: int) -> bool:
    """Say whether a discriminator can judge images of a size."""
    try:
        discriminator(torch.zeros(discriminator.least_batch_size, channels, image_size, image_size))
    except (RuntimeError, ValueError):  # torch's layers raise either
        return False
    return True


def build_validation(
    config: Mapping[str, Any],
    settings: Settings,
    data: TrainingData,
    run_dir: Path,
    device: torch.device,
    bad_samples: BadSamples,
) -> Validation:
    """Build what a run is measured by."""
    measures, fid = build_metrics(config, settings, device)
    return Validation(
        data=data,
        measures=measures,
        fid=fid,
        best=settings.metrics.best,
        pictures=run_dir / "images",
        bad_samples=bad_samples,
    )


def build_metrics(
    config: Mapping[str, Any], settings: Settings, device: torch.device
) -> tuple[dict[str, Measure], FID | None]:
    """Build what validation measures of single images, and FID; finds their networks' weights."""
    metrics = settings.metrics
    measures: dict[str, Measure] = {}
    for name in metrics.names:
        if name in MEASURES:
            measures[name] = MEASURES[name]
        elif name == "lpips":
            network = find_lpips(metrics.lpips_network, config, settings)
            measures[name] = LPIPSDistance(network=network).to(device)
    fid = None
    if "fid" in metrics.names:
        check_color("FID", settings)
        fid = FID(network=load_inception(config["weights"]["inception"])).to(device)
    return measures, fid


def begin_from(module: TokenizerTraining, init_from: str) -> None:
    """Give the tokenizer of a new run the weights of another one."""
    module.tokenizer.load_weights(Tokenizer.from_pretrained(init_from).state_dict())
    module.codebook_is_new = False


def split_kind(group: Mapping[str, Any]) -> dict[str, object]:
    """Turn a module's yaml into the form that a tokenizer is built from."""
    arguments = dict(group)
    return {"kind": arguments.pop("kind", None), "arguments": arguments}


@torch.no_grad()
def check_shapes(tokenizer: Tokenizer) -> None:
    """Send one small image through, so that modules that do not fit are found before the data."""
    grid = (tokenizer.codebook.token_grids or ((2, 2),))[-1]
    image = torch.zeros(1, tokenizer.channels, *(n * tokenizer.downsampling for n in grid))
    tokenizer.eval()
    try:
        made = tokenizer(image).images
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"encoder, codebook and decoder do not fit: {reason}") from error
    finally:
        tokenizer.train()
    if made.shape != image.shape:
        raise ConfigError(
            f"encoder and decoder do not fit: an image of {list(image.shape)} comes back as "
            f"{list(made.shape)}"
        )


def check_some(index: ImageIndex, transform: Transform) -> None:
    """Try some images, and refuse a setting with which none of them can be used."""
    tried = np.linspace(0, len(index) - 1, min(MAX_TRIED, len(index))).astype(int).tolist()
    reason = ""
    for image_id in tried:
        try:
            decode_image(index.read(image_id), transform, None)
        except BadSampleError as error:
            reason = str(error)
        else:
            return
    raise DataError(
        f"none of {len(tried)} images of data.train that were tried can be used, the last one is "
        f"{index.key(tried[-1])!r}: {reason}"
    )


def open_data(settings: Settings, seed: int, checkpoint: TrainingCheckpoint | None) -> TrainingData:
    """Index the images, and take those to validate on evenly from all that there are."""
    training, validation = training_and_validation(settings.data.train, settings.data.val)
    if isinstance(training, ImageIndex):
        check_some(training, settings.data.transform)
    limit = settings.trainer.limit_val
    if limit is not None and limit < len(validation):
        validation = validation.select(np.arange(limit) * len(validation) // limit)
    data = TrainingData(
        training=training,
        validation=validation,
        settings=settings.data,
        seed=seed,
        start=checkpoint["training"]["samples"] if checkpoint else 0,
        num_nodes=settings.trainer.num_nodes,
    )
    places = checkpoint["training"].get("places") if checkpoint else None
    if places is not None:
        data.continue_from(places, settings.trainer.world_size)
    return data
