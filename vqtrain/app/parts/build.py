"""From a composed configuration to the objects of a run, checked before anything starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch

from vqtrain.app.parts.own import check_metrics, check_objective, refuse_own
from vqtrain.build import bind, build_part, in_context, split_kind, unknown
from vqtrain.data.loading.buckets import bucket_sizes
from vqtrain.data.settings import DataSettings
from vqtrain.discriminators.base import Discriminator
from vqtrain.errors import ConfigError, require
from vqtrain.evaluation.cost import without_values
from vqtrain.losses.parts.adversarial import AdversarialTraining
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.metrics.base import Metric
from vqtrain.metrics.parts.build import build_metrics, kind_of, load_weights, why_not
from vqtrain.objective import Objective, build_adversarial, build_alignment, build_term
from vqtrain.ops.seeds import seed_torch
from vqtrain.optim.settings import DiscriminatorOptimSettings, OptimSettings
from vqtrain.ranges import at_least, check, resolve_fractions
from vqtrain.shapes import by, typed
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.settings import MetricsSettings, TrainerSettings

# Images that need more pixels than this are not searched for.
LARGEST_LEAST_SIZE = 256


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
        check("seed", seed, Annotated[int, at_least(0)])
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


def build_module(
    config: Mapping[str, Any], settings: Settings, sample_size: Sequence[int] | None = None
) -> TokenizerTraining:
    """Build the tokenizer and its objective, and check that samples fit them.

    Args:
        config: The composed configuration.
        settings: Its groups that are not modules.
        sample_size: Of the axes of a sample; None for images of ``data.image_size``.

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
    key = "data.image_size" if sample_size is None else "sample_size"
    where = f"{key}={typed(data.image_size if sample_size is None else list(size))}"
    check_shapes(tokenizer, size, where)
    check_warmup(settings.optim, settings.trainer.max_steps, "trainer.max_steps")
    objective = build_objective(resolved, settings, context, tokenizer)
    if data.aspect == "buckets" and sample_size is None:
        check_buckets(tokenizer, objective.discriminator, data)
    check_objective(objective, config, context)
    return TokenizerTraining(
        tokenizer=tokenizer,
        objective=objective,
        trainer_settings=settings.trainer,
        optim_settings=settings.optim,
        discriminator_settings=settings.discriminator,
        seed=config["seed"],
    )


def context_of(
    config: Mapping[str, Any], settings: Settings, sample_size: tuple[int, ...]
) -> dict[str, object]:
    """Say what parts may ask of the run by name; see ``vqtrain.build.in_context``."""
    return {
        "in_channels": settings.data.channels,
        "out_channels": settings.data.channels,
        "sample_size": sample_size,
        "max_steps": settings.trainer.max_steps,
        "world_size": settings.trainer.world_size,
        "weights": config["weights"],
    }


def build_objective(
    config: Mapping[str, Any],
    settings: Settings,
    context: Mapping[str, object],
    tokenizer: Tokenizer,
) -> Objective:
    """Build what is minimized; finds the pretrained weights of its terms."""
    loss = dict(config["loss"])
    adversarial = build_adversarial(loss.pop("adversarial"), loss.pop("discriminator"), context)
    check_adversarial(adversarial, tokenizer, context)
    group = loss.pop("alignment")
    terms = [build_term(name, each, context) for name, each in loss.items()]
    discriminator = build_discriminator(config, settings, adversarial.weight, context)
    seed_torch(config["seed"], "alignment")
    channels, *grid = aligned_shape(tokenizer, group.get("layer"), context)
    alignment = build_alignment(
        group, {**context, "aligned_channels": channels, "aligned_grid": tuple(grid)}
    )
    return Objective(
        terms=[term for term in terms if term is not None],
        discriminator=discriminator,
        adversarial=adversarial,
        alignment=alignment,
    )


def check_adversarial(
    adversarial: AdversarialTraining, tokenizer: Tokenizer, context: Mapping[str, object]
) -> None:
    """Refuse a layer that the tokenizer does not have, and what is not defined for the samples.

    Raises:
        ConfigError: If there is either.
    """
    names = [name for name, _ in tokenizer.named_parameters()]
    if adversarial.layer is not None and adversarial.layer not in names:
        raise ConfigError(f"loss.adversarial.layer: {unknown('weight', adversarial.layer, names)}")
    axes = len(cast(tuple[int, ...], context["sample_size"]))
    require(
        axes == 2 or not adversarial.settings.are_of_images,
        "loss.discriminator: augment, blur_steps and consistency_weight are for images alone, and "
        f"samples here have {axes} axes: set them to 0",
    )


def aligned_shape(
    tokenizer: Tokenizer, layer: object, context: Mapping[str, object]
) -> tuple[int, ...]:
    """Return the channels and the grid of what an alignment is given.

    Args:
        tokenizer: The tokenizer of the run.
        layer: The name of the module whose output is aligned; None for the quantized latents.
        context: What is known of the run.

    Raises:
        ConfigError: If there is no such module, or its output is no map of latents.
    """
    size = cast(tuple[int, ...], context["sample_size"])
    if layer is None:
        return (tokenizer.codebook.dim, *tokenizer.encoder.grid(size))
    names = [name for name, _ in tokenizer.named_modules() if name]
    if layer not in names:
        raise ConfigError(f"loss.alignment.layer: {unknown('module', str(layer), names)}")
    outputs: list[object] = []
    hook = tokenizer.get_submodule(str(layer)).register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output)
    )
    try:
        shapes_through(tokenizer, (1, tokenizer.channels, *size))
    finally:
        hook.remove()
    output = outputs[0] if outputs else None
    if not isinstance(output, torch.Tensor) or output.ndim < 3:
        raise ConfigError(f"loss.alignment.layer={layer}: its output is no map of latents")
    return tuple(output.shape[1:])


def check_warmup(settings: OptimSettings, steps: int, what: str) -> None:
    """Refuse a warm-up that does not fit into the steps in which a network moves."""
    if settings.warmup_steps > steps:
        raise ConfigError(
            f"{settings.key}.warmup_steps must be at most {steps} ({what}), got "
            f'{settings.warmup_steps}; a share such as "5%" fits every run'
        )


def build_discriminator(
    config: Mapping[str, Any],
    settings: Settings,
    weight: Weight,
    context: Mapping[str, object],
) -> Discriminator | None:
    """Build the discriminator, if there is one, and check that the run and its images fit it."""
    specification = split_kind(config["discriminator"])
    if specification["kind"] == "none":
        return None
    seed_torch(config["seed"], "discriminator")
    part = in_context("discriminator", specification, context)
    discriminator = cast(Discriminator, build_part("discriminator", part))
    steps = settings.trainer.max_steps - weight.start_step
    if steps <= 0:
        raise ConfigError(
            f"loss.adversarial.start_step must be below trainer.max_steps "
            f"({settings.trainer.max_steps}), got {weight.start_step}; a share such as "
            '"50%" fits every run, and discriminator=none does without'
        )
    check_warmup(settings.discriminator, steps, "the steps from loss.adversarial.start_step on")
    data = settings.data
    if data.batch_size < discriminator.least_batch_size:
        hint = discriminator.batch_hint and f"; {discriminator.batch_hint}"
        raise ConfigError(
            f"data.batch_size must be at least {discriminator.least_batch_size} for this "
            f"discriminator, got {data.batch_size}{hint}"
        )
    size = cast(tuple[int, ...], context["sample_size"])
    try:
        fits = takes(discriminator, data.channels, size)
    except Exception as error:
        refuse_own(str(specification["kind"]), discriminator, error, where="discriminator")
        raise
    if not fits:
        if size != data.sample_size:
            raise ConfigError(f"a sample of {by(size)} does not fit this discriminator")
        sizes = range(min(size), LARGEST_LEAST_SIZE)
        least = next((n for n in sizes if takes(discriminator, data.channels, (n, n))), "more")
        hint = discriminator.size_hint and f"; {discriminator.size_hint}"
        raise ConfigError(
            f"data.image_size must be at least {least} for this discriminator, got "
            f"{typed(data.image_size)}{hint}"
        )
    return discriminator


@torch.no_grad()
def takes(discriminator: Discriminator, channels: int, size: Sequence[int]) -> bool:
    """Say whether a discriminator takes samples of a size."""
    try:
        discriminator(torch.zeros(discriminator.least_batch_size, channels, *size))
    except (RuntimeError, ValueError):  # torch's layers raise either, ours a ConfigError
        return False
    return True


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


def check_shapes(tokenizer: Tokenizer, size: Sequence[int], where: str) -> None:
    """Send one sample of the run's size through, so that modules that do not fit are found early.

    It is sent through modules without values, which costs no time and no memory, whatever the size.
    A network that looks at values gets a real sample.

    Args:
        tokenizer: The tokenizer of the run.
        size: Of the axes of a sample.
        where: What sets the size, for messages.

    Raises:
        ConfigError: If the encoder or the codebook does not take that size, or if the modules do
            not fit each other.
    """
    try:
        tokenizer.token_shape(*size)
        grid = tokenizer.encoder.grid(size)
        tokenizer.decoder.size(grid)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    shape = (1, tokenizer.channels, *size)
    try:
        try:
            latents, decoded = shapes_through(without_values(tokenizer), shape)
        except RuntimeError:
            latents, decoded = shapes_through(tokenizer, shape)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"encoder, codebook and decoder do not fit: {reason}") from error
    except Exception as error:
        for name, specification in tokenizer.specification.items():
            refuse_own(str(specification["kind"]), getattr(tokenizer, name), error, where=name)
        raise
    if latents[2:] != grid or decoded != shape:
        raise ConfigError(
            f"encoder and decoder do not fit: for a sample of {list(shape)} the encoder returns a "
            f"grid of {by(latents[2:])} and declares {by(grid)}, and the decoder returns a sample "
            f"of {list(decoded)}"
        )


def check_buckets(
    tokenizer: Tokenizer, discriminator: Discriminator | None, data: DataSettings
) -> None:
    """Refuse sizes that one of the networks does not take.

    Raises:
        ConfigError: If there is one.
    """
    for size in bucket_sizes(data.image_size, tokenizer.unit):
        check_shapes(tokenizer, size, "data.aspect=buckets")
        if discriminator is not None and not takes(discriminator, data.channels, size):
            hint = discriminator.size_hint and f"; {discriminator.size_hint}"
            raise ConfigError(
                f"data.aspect=buckets: images of {by(size)} px do not fit this discriminator{hint}"
            )


@torch.no_grad()
def shapes_through(
    tokenizer: Tokenizer, shape: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of the latents of a sample, and of what is decoded from such a grid."""
    tokenizer.eval()
    try:
        sample = torch.zeros(tuple(shape), device=tokenizer.device)
        latents = tokenizer.project_in(tokenizer.encoder(sample))
        z_q = latents.new_zeros(len(sample), tokenizer.codebook.dim, *latents.shape[2:])
        decoded = tokenizer.decoder(tokenizer.project_out(z_q))
    finally:
        tokenizer.train()
    return tuple(latents.shape), tuple(decoded.shape)
