"""``vqtrain evaluate``: numbers of one tokenizer or several, which others can compare with."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import final

import torch
from rich.console import Console

from vqtrain.app.candidates import (
    choose_metrics,
    entry_of,
    load_all,
    load_metrics,
    measure_all,
    names_of,
    other_crops,
    save_images,
    with_cost,
)
from vqtrain.app.keys import describe, read_keys, taken
from vqtrain.app.output import ending_in_order, expand, new_folder, refuse_inside
from vqtrain.app.pictures import PICTURE_KEYS, TOKENIZER_KEYS, PictureSettings, find_device
from vqtrain.app.ranks import WIDTH, is_first, is_rank, joined, launch, local_rank, local_world_size
from vqtrain.app.validation import ChosenImages, named_images, validation_images
from vqtrain.build import bind, unknown
from vqtrain.data.index import ImageIndex
from vqtrain.data.servers import shareable
from vqtrain.distributed import world_size
from vqtrain.errors import ConfigError, VqtrainError, require
from vqtrain.evaluation import metrics as known
from vqtrain.evaluation import tables
from vqtrain.evaluation.measure import measuring_device
from vqtrain.evaluation.protocols import CONVENTIONS, PROTOCOLS

COMMAND = "vqtrain evaluate"
WEIGHTS = ("vgg", "alex", "inception", "pytorch_fid", "clean_fid")
KEYS: dict[str, tuple[object, str]] = {
    **TOKENIZER_KEYS,
    "tokenizer": (None, "a tokenizer, as of the other commands, or several: A,B"),
    "images": (
        None,
        "demo, a folder, a glob, tars, a URL or a list; null is what the run has validated on",
    ),
    "out": ("evaluation", "folder of the results, which must not exist"),
    **PICTURE_KEYS,
    "crop": (None, f"{PICTURE_KEYS['crop'][1]}; null is that of the protocol, or of the run"),
    "metrics": (None, f"of {', '.join(known.METRICS)}; null is all that fit the images"),
    "protocol": (tables.USUAL_PROTOCOL, f"whose FID: {', '.join(PROTOCOLS)}"),
    "baselines": (True, "whether JPEG, WebP and smaller pictures are measured, too"),
    "cost": (True, "whether parameters, FLOPs, speed and memory are measured, too"),
    "worst": (8, "pictures of the worst and of the best images"),
    "max_bad_fraction": (0.01, "share of the pictures that may be unreadable"),
    "devices": (1, "processes on this machine, each with a GPU of its own where there are some"),
    **{f"weights.{name}": (None, "file of weights; null is torch's cache") for name in WEIGHTS},
}

USAGE = f"""usage: {COMMAND} tokenizer=PATH [images=IMAGES] [out=DIR] [key=value ...]

Prints a table, and writes it to DIR/table.md, all figures to DIR/evaluation.json, those of single
images to DIR/per_image.parquet, and pictures to DIR/worst and DIR/best. Of several tokenizers,
those are in a folder for each. The worst image is that of the first metric of single images.

keys:
{describe(KEYS)}

Figures are the same on any number of processes. torchrun can start them, too.

options:
  --help   show this

examples:
  {COMMAND} tokenizer=runs/demo/latest metrics=[psnr,ssim] out=demo-figures
  {COMMAND} tokenizer=runs/a/latest,runs/b/latest images='val/{{00..15}}.tar' devices=8 protocol=adm
"""


@final
@dataclass(frozen=True, kw_only=True)
class Options:
    """What else was asked for; the attributes are keys.

    Raises:
        ConfigError: If a value is impossible.
    """

    metrics: list[str] | None
    protocol: str
    baselines: bool
    cost: bool
    worst: int
    max_bad_fraction: float
    devices: int
    given: Mapping[str, str | None]

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in self.metrics or []:
            if name not in known.METRICS:
                raise ConfigError(unknown("metric", name, known.METRICS))
        require(self.metrics != [], f"metrics must be some of {', '.join(known.METRICS)}, got none")
        require(self.worst >= 0, f"worst must be at least 0, got {self.worst}")
        share = self.max_bad_fraction
        require(0 <= share <= 1, f"max_bad_fraction must be in [0, 1], got {share}")
        require(self.devices >= 1, f"devices must be at least 1, got {self.devices}")
        if self.protocol not in PROTOCOLS:
            raise ConfigError(unknown("protocol", self.protocol, PROTOCOLS))
        require(
            self.devices == 1 or not is_rank(),
            f"devices={self.devices}, but this process is one of several already: leave it out",
        )


def main(words: Sequence[str]) -> int:
    """Evaluate, or show the help."""
    values = read_keys(COMMAND, words, KEYS)
    if values is None:
        sys.stdout.write(USAGE)
        return 0
    values["given"] = {name: values.pop(f"weights.{name}") for name in WEIGHTS}
    options = bind(Options, taken(values, Options.__annotations__), where=COMMAND)
    names = names_of(values["tokenizer"])
    typed = values["images"]
    images = named_images(typed) if typed else validation_images(names, values["allow"], COMMAND)
    own_crop = images.crop if options.protocol == tables.USUAL_PROTOCOL else None
    crop = values["crop"] or own_crop or CONVENTIONS[options.protocol].crop
    pictures = {**taken(values, PICTURE_KEYS), "crop": crop}
    settings = bind(PictureSettings, pictures, where=COMMAND)
    with ending_in_order():
        if options.devices == 1:
            rest = {**values, "images": images, "settings": settings, "options": options}
            return bind(run, rest, where=COMMAND)
        kept = [word for word in words if word.partition("=")[0] != "devices"]
        launch(["evaluate", *kept], options.devices)
        return 0


def run(
    *,
    tokenizer: str | list[str] | None,
    allow: list[str],
    images: ChosenImages,
    out: str,
    settings: PictureSettings,
    options: Options,
) -> int:
    """Evaluate, and say what came of it; the arguments are those of ``KEYS``."""
    console = Console(
        highlight=False,
        soft_wrap=True,
        width=None if sys.stdout.isatty() else WIDTH,
        quiet=not is_first(),
    )
    settings = on_this_rank(settings)
    device = find_device(settings.device)
    folder = new_folder(out) if is_first() else expand(out)
    refuse_inside(folder, images.near)
    candidates = load_all(tokenizer, allow, settings, COMMAND)
    names, notes = choose_metrics(options.metrics, [each.preparation for each in candidates])
    for note in [*notes, *other_crops(candidates, settings.crop)]:
        console.print(note, markup=False)
    metrics = load_metrics(
        names, options.protocol, given=options.given, device=measuring_device(device)
    )
    index = images.open()
    entries: list[tables.Entry] = []
    with ExitStack() as together:
        together.enter_context(joined(device))
        # Made once all are there: what ends one that waits for the others leaves no folder.
        with begun(folder, settings):
            with together.pop_all():
                report = describe_run(images.source, index, settings, entries)
                for candidate, measured in measure_all(
                    candidates,
                    index,
                    metrics,
                    settings,
                    with_baselines=options.baselines,
                    max_bad_fraction=options.max_bad_fraction,
                    console=console,
                ):
                    if is_first():
                        entries.append(entry_of(candidate, measured, index, metrics, settings))
                        tables.save(report, folder)  # at once: the next tokenizer may fail
                        save_images(entries[-1], candidate, index, settings, options.worst, folder)
            if not is_first():
                return 0
            if options.cost:  # alone on the machine
                entries[:] = map(partial(with_cost, settings=settings), entries, candidates)
                tables.save(report, folder)
    tables.show(report, console)
    console.print(f"{'written':<12}{folder}", markup=False)
    return 0


def on_this_rank(settings: PictureSettings) -> PictureSettings:
    """Give this process a GPU of its own, and its share of the cores."""
    if not is_rank():
        return settings
    device = find_device(settings.device)
    if device.type == "cuda" and device.index is None:
        settings = replace(settings, device=f"cuda:{local_rank()}")
    return replace(settings, num_workers=max(1, settings.workers // local_world_size()))


def describe_run(
    source: object,
    index: ImageIndex,
    settings: PictureSettings,
    entries: Sequence[tables.Entry],
) -> tables.Report:
    """Say on what and with what all is measured."""
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
def begun(folder: Path, settings: PictureSettings) -> Iterator[None]:
    """Make the folder of the results now, so that no figures are lost for want of one.

    If nothing comes of it, it is removed.

    Raises:
        ConfigError: If it cannot be made.
        VqtrainError: If the results cannot be computed or written.
    """
    try:
        if is_first():
            folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from error
    try:
        yield
    except torch.OutOfMemoryError as error:
        failure = VqtrainError(
            f"the device has too little memory for batch_size={settings.batch_size}: give a "
            "smaller one"
        )
        failure.exit_code = 1
        raise failure from error
    except OSError as error:
        failure = VqtrainError(f"cannot write {folder}: {error.strerror or error}")
        failure.exit_code = 1
        raise failure from error
    except VqtrainError as error:
        error.exit_code = 1
        raise
    finally:
        if is_first():
            with suppress(OSError):  # it is not empty
                folder.rmdir()
