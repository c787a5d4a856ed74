"""``vqtrain evaluate``: numbers of one tokenizer or several, which others can compare with."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, final

import torch
from rich.console import Console

from vqtrain.app.base import Command
from vqtrain.app.parts.metrics import listed_metrics, reconstruction_metrics
from vqtrain.app.parts.output import ending_in_order, folder_of, new_folder, refuse_inside
from vqtrain.app.parts.progress import shown_progress
from vqtrain.app.parts.sources import SampleSources, check_media
from vqtrain.app.parts.validation import ChosenImages, named_images, validation_images
from vqtrain.data.media import IMAGE, SOUND, VIDEO, Media
from vqtrain.data.remote.urls import shareable
from vqtrain.data.settings.image import ImageSize
from vqtrain.data.sources.index import SampleIndex
from vqtrain.distributed import world_size
from vqtrain.errors import ConfigError, as_failure, require
from vqtrain.evaluation import tables
from vqtrain.evaluation.extremes import save_extremes
from vqtrain.evaluation.measure import measuring_device
from vqtrain.evaluation.models import (
    choose_metrics,
    entry_of,
    load_all,
    load_metrics,
    measure_all,
    names_of,
    other_crops,
    with_costs,
)
from vqtrain.evaluation.settings import SampleSettings, find_device
from vqtrain.launchers.parts.ranks import (
    WIDTH,
    is_first,
    is_rank,
    joined,
    launch,
    local_rank,
    local_world_size,
)
from vqtrain.metrics.base import Metric
from vqtrain.metrics.fid import USUAL_PROTOCOL
from vqtrain.metrics.parts.fid_protocols import PROTOCOLS
from vqtrain.ranges import at_least, one_of, within

# Words of configs/metrics: all that samples of a media may fit.
DEFAULT_METRICS = {IMAGE: "all", VIDEO: "video", SOUND: "sound"}


@final
@dataclass(frozen=True, kw_only=True)
class Options:
    """What else was asked for; its fields are keys.

    Raises:
        ConfigError: If a value is impossible.
    """

    metrics: list[str | Mapping[str, object]] | str | None
    protocol: Annotated[str, one_of(*PROTOCOLS)]
    num_tokens: list[int] | int | None
    baselines: bool
    cost: bool
    worst: Annotated[int, at_least(0)]
    first: Annotated[int, at_least(0)]
    max_bad_fraction: Annotated[float, within(0, 1)]
    devices: Annotated[int, at_least(1)]
    weights: Mapping[str, str | None]

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        counts = self.counts
        require(
            all(count is None or count >= 1 for count in counts) and len({*counts}) == len(counts),
            f"num_tokens must be different numbers of at least 1, got {self.num_tokens}",
        )
        require(
            self.devices == 1 or not is_rank(),
            f"devices={self.devices}, but this process is one of several already: leave it out",
        )

    @property
    def counts(self) -> Sequence[int | None]:
        """How many tokens are decoded, of each row; None is all."""
        return self.num_tokens if isinstance(self.num_tokens, list) else [self.num_tokens]


def metrics_of(options: Options, media: Media) -> list[Metric]:
    """Build the metrics that were asked for, without their weights.

    Raises:
        ConfigError: If one cannot be built, or measures no reconstructions.
    """
    typed = options.metrics
    names = listed_metrics(DEFAULT_METRICS[media] if typed is None else typed)
    fid = {"kind": "fid", "protocol": options.protocol}
    return reconstruction_metrics([fid if x == "fid" else x for x in names])


@final
class Evaluate(Command):
    """Measures tokenizers."""

    def run(
        self,
        *,
        words: list[str],
        tokenizer: str | list[str],
        allow: list[str],
        sources: SampleSources,
        out: str,
        image_size: ImageSize | None,
        frames: Annotated[int, at_least(1)] | None,
        length: Annotated[int, at_least(1)] | None,
        crop: str | None,
        batch_size: int,
        num_workers: int | None,
        device: str,
        precision: str,
        options: Options,
    ) -> int:
        """Evaluate, and say what came of it."""
        if sources.given:
            chosen = named_images(*sources.named("vqtrain evaluate tokenizer=PATH images=IMAGES"))
        else:
            chosen = validation_images(names_of(tokenizer), allow)
        own_crop = chosen.crop if options.protocol == USUAL_PROTOCOL else None
        settings = SampleSettings(
            image_size=image_size,
            frames=frames,
            length=length,
            crop=crop or own_crop or PROTOCOLS[options.protocol].crop,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            precision=precision,
        )
        metrics = metrics_of(options, chosen.media)
        with ending_in_order():
            if options.devices == 1:
                evaluate(tokenizer, allow, chosen, out, settings, options, metrics)
            else:
                kept = [word for word in words if word.partition("=")[0] != "devices"]
                launch(["evaluate", *kept], options.devices)
        return 0


def evaluate(
    tokenizer: str | list[str],
    allow: list[str],
    images: ChosenImages,
    out: str,
    settings: SampleSettings,
    options: Options,
    metrics: Sequence[Metric],
) -> None:
    """Evaluate in this process, which may be one of several."""
    console = Console(
        highlight=False,
        soft_wrap=True,
        width=None if sys.stdout.isatty() else WIDTH,
        quiet=not is_first(),
    )
    settings = on_this_rank(settings)
    device = find_device(settings.device)
    folder = new_folder(out) if is_first() else folder_of(out)
    refuse_inside(folder, images.near)
    models = load_all(tokenizer, allow, settings, options.counts)
    for model in models:
        check_media(images.media, model.tokenizer, model.name)
    index = images.open()  # a misspelt path is said before anything is downloaded
    metrics, notes = choose_metrics(
        metrics,
        [each.transform for each in models],
        is_typed=options.metrics is not None,
    )
    for note in [*notes, *other_crops(models, settings.crop)]:
        console.print(note, markup=False)
    loaded, missing = load_metrics(
        metrics,
        given=options.weights,
        device=measuring_device(device),
        # Processes that left out different ones would wait for each other for ever.
        is_typed=options.metrics is not None or is_rank(),
    )
    metrics, rules = list(loaded), {each.name: rule for each, rule in loaded.items()}
    for note in missing:
        console.print(note, markup=False)
    entries: list[tables.Entry] = []
    with ExitStack() as together:
        together.enter_context(joined(device))
        # Created once all ranks are there: one that ends while it waits leaves no folder.
        with begun(folder, settings):
            with together.pop_all():
                report = describe_run(images.source, index, settings, entries)
                for model, measured in measure_all(
                    models,
                    index,
                    metrics,
                    rules,
                    settings,
                    with_baselines=options.baselines,
                    max_bad_fraction=options.max_bad_fraction,
                    shown=partial(shown_progress, console, noun=images.media.noun),
                ):
                    if is_first():
                        entry = entry_of(model, measured, index, metrics, rules, settings)
                        entries.append(entry)
                        tables.save(report, folder)  # at once: the next tokenizer may fail
                        save_extremes(
                            *(entry, model, index, metrics, settings, folder),
                            worst=options.worst,
                            first=options.first,
                        )
            if not is_first():
                return
            if options.cost:  # alone on the machine
                entries[:] = with_costs(list(entries), models, settings)
                tables.save(report, folder)
    tables.show(report, console)
    console.print(f"{'written':<12}{folder}", markup=False)


def on_this_rank(settings: SampleSettings) -> SampleSettings:
    """Give this process a GPU of its own, and its share of the cores."""
    if not is_rank():
        return settings
    device = find_device(settings.device)
    if device.type == "cuda" and device.index is None:
        settings = replace(settings, device=f"cuda:{local_rank()}")
    return replace(settings, num_workers=max(1, settings.workers // local_world_size()))


def describe_run(
    source: object,
    index: SampleIndex,
    settings: SampleSettings,
    entries: Sequence[tables.Entry],
) -> tables.Report:
    """Describe the images and the settings of the evaluation."""
    shown = json.loads(shareable(json.dumps(source)))
    return tables.Report(
        images={"source": shown, "count": len(index), "digest": index.digest},
        settings={
            "crop": settings.crop,
            "batch_size": settings.batch_size,
            "device": settings.device,
            "precision": settings.precision,
            "processes": world_size(),
        },
        entries=entries,
    )


@contextmanager
def begun(folder: Path, settings: SampleSettings) -> Iterator[None]:
    """Create the folder of the results now, so that no results are lost because it cannot be.

    It is removed if it stays empty.

    Raises:
        ConfigError: If it cannot be made.
        VqtrainError: If the results cannot be computed or written.
    """
    try:
        if is_first():
            folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from error
    explain = {
        torch.OutOfMemoryError: lambda _: (
            f"the device has too little memory for batch_size={settings.batch_size}: give a "
            "smaller one"
        ),
        OSError: lambda error: f"cannot write {folder}: {error.strerror or error}",
    }
    try:
        with as_failure(explain):
            yield
    finally:
        if is_first():
            with suppress(OSError):  # it is not empty
                folder.rmdir()
