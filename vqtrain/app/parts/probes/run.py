"""The probe of one tokenizer that is under way."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast, final

from rich.console import Console

from vqtrain.app.parts.probes.folder import TOKENIZER, TRAIN, VAL
from vqtrain.app.parts.probes.images import ProbeImages
from vqtrain.app.parts.probes.options import ProbeOptions
from vqtrain.data.media import IMAGE
from vqtrain.evaluation.baselines import bits_per_pixel
from vqtrain.evaluation.measure import measuring_device
from vqtrain.evaluation.models import Model, choose_metrics, load_metrics
from vqtrain.evaluation.settings import SampleSettings, find_device
from vqtrain.generation.form import TokenForm
from vqtrain.generation.results import ProbeReport, TokenizerProbe, write_probe
from vqtrain.metrics.base import Metric
from vqtrain.shapes import ImageSize
from vqtrain.tokenizer.model import Tokenizer


@final
@dataclass(kw_only=True)
class TokenizerRun:
    """The probe of one tokenizer, which is under way.

    Attributes:
        model: The tokenizer, on its device, with how images become samples for it.
        form: Of its ids.
        images: All images.
        folder: Of the results.
        settings: How images are read, and on what all is computed.
        options: What else was asked for.
        report: What was found so far.
        command: The command line, without passwords.
        console: Where to say how it goes.
    """

    model: Model
    form: TokenForm
    images: ProbeImages
    folder: Path
    settings: SampleSettings
    options: ProbeOptions
    report: ProbeReport
    command: str
    console: Console

    @property
    def found(self) -> TokenizerProbe:
        """What was found of the tokenizer so far."""
        (found,) = self.report.tokenizers
        return found

    @property
    def num_positions(self) -> int:
        """Pixels of an image, or values of another sample."""
        return math.prod(self.model.transform.sample_size)

    @property
    def left(self) -> list[str]:
        """The stages that are asked for and not done."""
        return [stage for stage in self.options.stages if getattr(self.found, stage) is None]

    @cached_property
    def metrics(self) -> Mapping[Metric, Mapping[str, str]]:
        """The metrics of decoded images with their weights, and how the values of each come about.

        Raises:
            ConfigError: If one that was typed does not fit the images.
            WeightsError: If weights of one that was typed are missing.
        """
        options, is_typed = self.options, self.options.metrics is not None
        metrics, unfit = choose_metrics(
            options.build_metrics(), [self.model.transform], is_typed=is_typed
        )
        loaded, missing = load_metrics(
            metrics,
            given=options.weights,
            device=measuring_device(find_device(self.settings.device)),
            is_typed=is_typed,
        )
        for note in [*unfit, *missing]:
            self.console.print(note, markup=False)
        return loaded

    @property
    def train_tokens(self) -> Path:
        """The folder of the ids to train on."""
        return self.images.tokens or self.folder / TRAIN

    @property
    def val_tokens(self) -> Path:
        """The folder of the ids to measure on."""
        return self.folder / VAL

    def keep(self, **results: object) -> None:
        """Add results, and write all."""
        found = replace(self.found, **results)  # type: ignore[arg-type]  # fields by name
        self.report = replace(self.report, tokenizers=[found])
        write_probe(self.report, self.folder)

    def say(self, word: str, text: str) -> None:
        """Print a line."""
        self.console.print(f"{word:<12}{text}", markup=False)


def begin(
    path: str,
    tokenizer: Tokenizer,
    images: ProbeImages,
    settings: SampleSettings,
    options: ProbeOptions,
) -> ProbeReport:
    """Describe a probe of which nothing is done yet."""
    transform = settings.transform(tokenizer)
    size: ImageSize = list(transform.sample_size)
    if transform.media is IMAGE:
        size = cast(ImageSize, transform.summary["image_size"])
    shape = tokenizer.token_shape(*transform.sample_size)
    found = TokenizerProbe(
        name=short_name(path),
        path=path,
        kind=str(tokenizer.specification["codebook"]["kind"]),
        size=tokenizer.vocab_size,
        num_codebooks=tokenizer.codebook.num_codebooks,
        token_shape=list(shape),
        image_size=size,
        tokens_per_image=math.prod(shape),
        bits_per_pixel=bits_per_pixel(tokenizer, transform.sample_size) or 0.0,
    )
    described = {
        "image_size": size,
        "crop": settings.crop,
        "batch_size": settings.batch_size,
        "device": find_device(settings.device).type,
        "precision": settings.precision,
        **options.described(options.stages),
    }
    return ProbeReport(images=images.described, settings=described, tokenizers=[found])


def short_name(path: str) -> str:
    """Name a tokenizer by the last word of its path that says something.

    Example:
        >>> short_name("runs/a/latest/"), short_name("hf://org/name")
        ('a', 'name')
    """
    words = [word for word in path.split("/") if word not in ("", ".", "latest", TOKENIZER)]
    return words[-1] if words else path
