"""What a run minimizes, from its configuration, and the noise that its decoder gets."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from vqtrain.app.parts.own import check_part, refuse_own
from vqtrain.app.parts.settings import Settings
from vqtrain.app.parts.shapes import shapes_through, takes
from vqtrain.build import bind, build_part, in_context, split_kind, unknown
from vqtrain.data.settings.image import ImageData
from vqtrain.data.settings.video import VideoData
from vqtrain.discriminators.base import Discriminator
from vqtrain.errors import ConfigError, require
from vqtrain.latent_noise.base import LatentNoise
from vqtrain.losses.parts.adversarial import AdversarialTraining
from vqtrain.losses.parts.balancer import BalancerSettings
from vqtrain.losses.parts.frames import for_samples, seen_size
from vqtrain.objective import (
    Objective,
    WeightedTerm,
    build_adversarial,
    build_alignment,
    build_term,
)
from vqtrain.ops.seeds import seed_torch
from vqtrain.optim.settings import OptimSettings
from vqtrain.shapes import by, typed
from vqtrain.tokenizer.checks import MAX_LISTED
from vqtrain.tokenizer.model import Tokenizer

# Images that need more pixels than this are not searched for.
LARGEST_LEAST_SIZE = 256


def build_objective(
    config: Mapping[str, Any],
    settings: Settings,
    context: Mapping[str, object],
    tokenizer: Tokenizer,
    *,
    typed_start: object,
) -> Objective:
    """Build what is minimized; finds the pretrained weights of its terms.

    Args:
        config: The composed configuration, its shares of the run as steps.
        settings: Of the groups that are not modules.
        context: What parts may ask of the run.
        tokenizer: The tokenizer.
        typed_start: ``loss.adversarial.start_step`` before it was a step, for messages.
    """
    loss = dict(config["loss"])
    adversarial = build_adversarial(loss.pop("adversarial"), loss.pop("discriminator"), context)
    check_layer(adversarial, tokenizer)
    balancer = bind(BalancerSettings, loss.pop("balancer"), where="loss.balancer")
    group = loss.pop("alignment")
    built = [build_term(name, each, context) for name, each in loss.items()]
    terms = [term for term in built if term is not None]
    check_extra_channels(terms, tokenizer)
    discriminator = build_discriminator(config, settings, adversarial, context, typed_start)
    seed_torch(config["seed"], "alignment")
    channels, *grid = aligned_shape(tokenizer, group.get("layer"), context)
    alignment = build_alignment(
        group, {**context, "aligned_channels": channels, "aligned_grid": tuple(grid)}
    )
    return Objective(
        terms=terms,
        discriminator=discriminator,
        adversarial=adversarial,
        alignment=alignment,
        frames_per_loss=cast(int | None, context.get("frames_per_loss")),
        balancer=balancer,
    )


def check_extra_channels(terms: Sequence[WeightedTerm], tokenizer: Tokenizer) -> None:
    """Refuse a term that wants channels of the decoder's output that it does not have.

    Raises:
        ConfigError: If there is one.
    """
    given = tokenizer.decoder.extra_channels
    for term in terms:
        wanted = term.loss.extra_channels
        require(
            wanted in (0, given),
            f"loss.{term.weight.name} needs a decoder that gives {wanted} channels besides those "
            f"of a sample, as decoder=dvae does; this one gives {given or 'none'}",
        )


def check_layer(adversarial: AdversarialTraining, tokenizer: Tokenizer) -> None:
    """Refuse a layer that the tokenizer does not have.

    Raises:
        ConfigError: If it has none of that name.
    """
    names = [name for name, _ in tokenizer.named_parameters()]
    if adversarial.layer is not None and adversarial.layer not in names:
        raise ConfigError(f"loss.adversarial.layer: {unknown('weight', adversarial.layer, names)}")


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


def build_discriminator(
    config: Mapping[str, Any],
    settings: Settings,
    adversarial: AdversarialTraining,
    context: Mapping[str, object],
    typed_start: object,
) -> Discriminator | None:
    """Build the discriminator, if there is one, and check that the run and its samples fit it."""
    specification = split_kind(config["discriminator"])
    if specification["kind"] == "none":
        return None
    seed_torch(config["seed"], "discriminator")
    part = for_samples("discriminator", specification, context, where="discriminator")
    discriminator = cast(Discriminator, build_part("discriminator", part))
    start = adversarial.weight.start_step
    steps = settings.trainer.max_steps - start
    if steps <= 0:
        share = f", which is {typed_start} of it, rounded" if isinstance(typed_start, str) else ""
        raise ConfigError(
            f"loss.adversarial.start_step must be below trainer.max_steps "
            f"({settings.trainer.max_steps}), got {start}{share}: take more steps, a smaller "
            "start_step, or discriminator=none, which does without"
        )
    check_warmup(settings.discriminator, steps, "the steps from loss.adversarial.start_step on")
    check_samples(discriminator, str(specification["kind"]), settings, adversarial, context)
    return discriminator


def check_samples(
    discriminator: Discriminator,
    kind: str,
    settings: Settings,
    adversarial: AdversarialTraining,
    context: Mapping[str, object],
) -> None:
    """Refuse samples and batches that a discriminator does not take.

    Args:
        discriminator: As it is built.
        kind: Its kind.
        settings: Of the run.
        adversarial: What else is done to what it sees.
        context: What is known of the run.

    Raises:
        ConfigError: If it does not take them.
    """
    data, size = settings.data, cast(tuple[int, ...], context["sample_size"])
    seen = seen_size(type(discriminator), size, where=f"discriminator={kind}")
    require(
        len(seen) == 2 or not adversarial.settings.are_of_images,
        "loss.discriminator: augment, blur_steps and consistency_weight are for images alone, and "
        f"discriminator={kind} sees samples of {len(seen)} axes: set them to 0",
    )
    frames, has_images = 1, isinstance(data, VideoData) and data.has_images
    if len(seen) < len(size) and not has_images:  # each batch has this many images of a clip
        frames = min(size[0], cast(int | None, context.get("frames_per_loss")) or size[0])
    if frames * data.batch_size < discriminator.least_batch_size:
        hint = discriminator.batch_hint and f"; {discriminator.batch_hint}"
        raise ConfigError(
            f"data.batch_size must be at least {-(-discriminator.least_batch_size // frames)} for "
            f"this discriminator, got {data.batch_size}{hint}"
        )
    try:
        fits = takes(discriminator, data.channels, seen)
    except Exception as error:
        refuse_own(kind, discriminator, error, where="discriminator")
        raise
    if not fits:
        if size != data.sample_size or not isinstance(data, ImageData):
            raise ConfigError(f"a sample of {by(size)} does not fit this discriminator")
        sizes = range(min(seen), LARGEST_LEAST_SIZE)
        least = next((n for n in sizes if takes(discriminator, data.channels, (n, n))), "more")
        hint = discriminator.size_hint and f"; {discriminator.size_hint}"
        raise ConfigError(
            f"data.image_size must be at least {least} for this discriminator, got "
            f"{typed(data.image_size)}{hint}"
        )


def check_warmup(settings: OptimSettings, steps: int, what: str) -> None:
    """Refuse a warm-up that does not fit into the steps in which a network moves."""
    if settings.warmup_steps > steps:
        raise ConfigError(
            f"{settings.key}.warmup_steps must be at most {steps} ({what}), got "
            f'{settings.warmup_steps}; a share such as "5%" fits every run'
        )


def build_latent_noise(
    config: Mapping[str, Any], tokenizer: Tokenizer, context: Mapping[str, object]
) -> LatentNoise | None:
    """Build the noise on the decoder's latents, if there is any, and check that codes fit it."""
    specification = split_kind(config["latent_noise"])
    kind = str(specification["kind"])
    if kind == "none":
        return None
    part = in_context("latent_noise", specification, context)
    noise = cast(LatentNoise, build_part("latent_noise", part))
    codebook = tokenizer.codebook
    has_codes = codebook.num_codebooks == 1 and not codebook.token_grids
    require(
        not noise.needs_codes or (has_codes and codebook.size <= MAX_LISTED),
        f"latent_noise={kind} needs a codebook of one id a token and at most {MAX_LISTED} codes, "
        f"and codebook={tokenizer.specification['codebook']['kind']} is none",
    )
    check_part("latent_noise", kind, noise, where="latent_noise", context=context)
    return noise
