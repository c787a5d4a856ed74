"""From a composed configuration to the objects of a run, checked before anything starts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vqtrain.app.parts.objective import build_latent_noise, build_objective, check_warmup
from vqtrain.app.parts.own import check_metrics, check_objective
from vqtrain.app.parts.settings import Settings
from vqtrain.app.parts.shapes import check_buckets, check_shapes
from vqtrain.build import in_context, split_kind
from vqtrain.data.settings.base import DataSettings
from vqtrain.errors import ConfigError, require
from vqtrain.metrics.base import Metric
from vqtrain.metrics.parts.build import (
    build_metrics,
    kind_of,
    load_weights,
    set_sample_rate,
    why_not,
)
from vqtrain.ops.seeds import seed_torch
from vqtrain.ranges import resolve_fractions
from vqtrain.shapes import typed
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.module import TokenizerTraining

# What networks of each media are called, for those who have chosen others.
FITTING = {
    "image": "encoder=vqvae decoder=vqvae, for example",
    "video": "encoder=magvit2_video decoder=magvit2_video or experiment=video_demo, for example",
    "sound": "encoder=seanet decoder=seanet or experiment=sound_demo, for example",
}


def build_module(
    config: Mapping[str, Any], settings: Settings, sample_size: Sequence[int] | None = None
) -> TokenizerTraining:
    """Build the tokenizer and its objective, and check that samples fit them.

    Args:
        config: The composed configuration.
        settings: Its groups that are not modules.
        sample_size: Of the axes of a sample; None for that of ``data``.

    Raises:
        ConfigError: If a part cannot be built, or does not fit the others or the samples.
        WeightsError: If pretrained weights are missing.
    """
    seed_torch(config["seed"], "weights")
    resolved: dict[str, Any] = resolve_fractions(config, settings.trainer.max_steps)
    data, size = settings.data, tuple(sample_size or settings.data.sample_size)
    context = context_of(resolved, settings, size)
    tokenizer = Tokenizer(
        encoder=in_context("encoder", split_kind(resolved["encoder"]), context),
        codebook=in_context("codebook", split_kind(resolved["codebook"]), context),
        decoder=in_context("decoder", split_kind(resolved["decoder"]), context),
        channels=data.channels,
        pixel_range=data.pixel_range,
    )
    if sample_size is None:
        check_media(tokenizer, data)
    where = data.size_key if sample_size is None else f"sample_size={typed(list(size))}"
    check_shapes(tokenizer, size, where)
    check_warmup(settings.optim, settings.trainer.max_steps, "trainer.max_steps")
    start = config["loss"]["adversarial"].get("start_step")
    objective = build_objective(resolved, settings, context, tokenizer, typed_start=start)
    if sample_size is None:
        check_buckets(tokenizer, objective.discriminator, data)
    check_objective(objective, config, context)
    latent_noise = build_latent_noise(resolved, tokenizer, context)
    return TokenizerTraining(
        tokenizer=tokenizer,
        objective=objective,
        latent_noise=latent_noise,
        trainer_settings=settings.trainer,
        optim_settings=settings.optim,
        discriminator_settings=settings.discriminator,
        seed=config["seed"],
    )


def check_media(tokenizer: Tokenizer, data: DataSettings) -> None:
    """Refuse networks of samples with other axes than those of the data.

    Raises:
        ConfigError: If they are.
    """
    axes, kind = len(tokenizer.downsampling), tokenizer.specification["encoder"]["kind"]
    require(
        axes == data.media.axes,
        f"encoder={kind} takes samples of {axes} axes, and data={data.media.word} gives "
        f"{data.media.noun}s, of {data.media.axes}: choose {FITTING[data.media.word]}",
    )


def context_of(
    config: Mapping[str, Any], settings: Settings, sample_size: tuple[int, ...]
) -> dict[str, object]:
    """Say what parts may ask of the run by name; see ``vqtrain.build.in_context``."""
    return {
        "in_channels": settings.data.channels,
        "out_channels": settings.data.channels,
        "sample_size": sample_size,
        **settings.data.context,
        "sample_rate": settings.data.transform.summary.get("sample_rate"),
        "max_steps": settings.trainer.max_steps,
        "world_size": settings.trainer.world_size,
        "weights": config["weights"],
    }


def find_metrics(
    config: Mapping[str, Any],
    settings: Settings,
    device: torch.device,
    sample_size: Sequence[int] | None = None,
) -> tuple[list[Metric], Metric]:
    """Build the metrics of validation with their weights, and say which chooses the best step."""
    metrics, best = fitting_metrics(settings, sample_size)
    data = settings.data
    size = tuple(sample_size or data.sample_size)
    known = {"given": config["weights"], "channels": data.channels, "size": size}
    check_metrics(settings.metrics.names, metrics, known)
    load_weights(metrics, config["weights"], device)
    return metrics, best


def fitting_metrics(
    settings: Settings, sample_size: Sequence[int] | None = None
) -> tuple[list[Metric], Metric]:
    """Build the metrics of validation, without weights, and say which chooses the best step.

    Raises:
        ConfigError: If one cannot be built or does not take the samples, or none is the best one.
    """
    entries, data = settings.metrics.names, settings.data
    metrics = build_metrics(entries)
    set_sample_rate(metrics, data.transform.summary)
    for metric in metrics:
        reason = why_not(metric, data.channels, sample_size or data.sample_size)
        if reason is not None:
            raise ConfigError(f"metrics: {reason}")
    best = settings.metrics.best or metrics[0].name
    words = [(kind_of(entry), each.name) for entry, each in zip(entries, metrics, strict=True)]
    chosen = [each for each, own in zip(metrics, words, strict=True) if best in own]
    if not chosen:
        named = ", ".join(kind for kind, _ in words)
        raise ConfigError(f"metrics.best must be one of the metrics ({named}), got {best!r}")
    return metrics, chosen[0]
