"""The page of a training run."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import yaml

from vqtrain.data.images import Preparation
from vqtrain.data.index import ImageIndex
from vqtrain.data.servers import shareable
from vqtrain.errors import ConfigError, VqtrainError
from vqtrain.evaluation.baselines import bits_per_pixel
from vqtrain.evaluation.metrics import is_lower_better
from vqtrain.reports.blocks import (
    MISSING,
    Block,
    Code,
    Facts,
    Item,
    Layer,
    Page,
    Section,
    Table,
    Text,
    Viewer,
    figure,
    number,
    word,
)
from vqtrain.reports.configuration import configuration
from vqtrain.reports.examine import Examined, Shown, examine, open_validation
from vqtrain.reports.histogram import codebook_blocks
from vqtrain.reports.pictures import MOST_SIDE, Album, Shelf, cut_strip, evenly, read_picture
from vqtrain.reports.series import Curve, charts_of, label, read_metrics
from vqtrain.tokenizer.model import Tokenizer

CONFIG, METRICS, ENVIRONMENT = "config.yaml", "metrics.jsonl", "environment.json"
ORIGINAL, RECONSTRUCTION, IDS = "original", "reconstruction", "ids"
# Bytes of the pictures of each section; with them a page stays well below 5 MB.
SOME_BYTES, WORST_BYTES, PROGRESS_BYTES = 1_300_000, 700_000, 1_000_000
MOST_SHOWN, MOST_STEPS, MOST_PROGRESS = 12, 8, 8


@final
@dataclass(frozen=True, kw_only=True)
class Held:
    """The images of a run's validation that are open already.

    Attributes:
        index: The images.
        preparation: How they become what the tokenizer takes.
    """

    index: ImageIndex
    preparation: Preparation


def is_run(path: Path) -> bool:
    """Say whether a folder is a run directory."""
    return (path / CONFIG).is_file()


def run_page(
    run: Path, *, other: Path | None, limit: int, device: torch.device, held: Held | None
) -> Page:
    """Make the page of a run directory.

    Args:
        run: The run directory.
        other: Another one, with whose configuration this one's is compared; or None.
        limit: Images that its tokenizer is measured on, at most.
        device: Where that is done.
        held: These images, if they are open already.

    Raises:
        ConfigError: If a configuration cannot be read.
    """
    config = read_config(run)
    metrics, damaged = read_metrics(run / METRICS)
    album = Album()
    tokenizer, trouble = load_tokenizer(run)
    examined = None
    if tokenizer is not None:
        examined, trouble = examine_run(tokenizer, config, limit=limit, device=device, held=held)
    sections = [
        Section(key="summary", title="Summary", blocks=summary(config, metrics, tokenizer)),
        Section(key="curves", title="Curves", blocks=curve_blocks(metrics, damaged)),
        *picture_sections(album, examined, trouble),
    ]
    if progress := progress_blocks(run, album):
        sections.append(Section(key="progress", title="Progress", blocks=progress))
    compared = None if other is None else (str(other), read_config(other))
    sections += [
        Section(key="configuration", title="Configuration", blocks=configuration(config, compared)),
        Section(key="environment", title="Environment", blocks=environment(run)),
    ]
    return Page(
        title=str(config.get("name") or run.name),
        kind="Training run",
        subtitle=state_of(config, metrics),
        sections=sections,
        pictures=album.uris,
    )


def read_config(run: Path) -> dict[str, Any]:
    """Read a run's configuration.

    Raises:
        ConfigError: If it is not there, or no mapping.
    """
    file = run / CONFIG
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"cannot read {file}: it must hold a mapping")
    return config


def load_tokenizer(run: Path) -> tuple[Tokenizer | None, str]:
    """Load a run's tokenizer; or return None and why there is none."""
    if not (run / "tokenizer").is_dir():
        return None, "This run has no tokenizer yet: it is exported at each checkpoint."
    try:
        # Building modules draws random numbers, which are none of our business.
        with torch.random.fork_rng(devices=[]):
            return Tokenizer.from_pretrained(run / "tokenizer"), ""
    except VqtrainError as error:
        return None, f"The tokenizer cannot be loaded: {error}."


def examine_run(
    tokenizer: Tokenizer,
    config: Mapping[str, Any],
    *,
    limit: int,
    device: torch.device,
    held: Held | None,
) -> tuple[Examined | None, str]:
    """Measure a run's tokenizer on images of its validation; or return None and why not."""
    try:
        if held is None:
            index, preparation = open_validation(config)
        else:
            index, preparation = held.index, held.preparation
        found = examine(tokenizer, index, preparation, limit=limit, shown=MOST_SHOWN, device=device)
    except VqtrainError as error:
        reason = shareable(str(error))
        return None, f"The images of the validation cannot be shown: {reason}."
    return found, ""


def last_step(metrics: Mapping[str, Curve]) -> int | None:
    """Return the last step of which there is a line."""
    return max((int(curve.steps[-1]) for curve in metrics.values()), default=None)


def state_of(config: Mapping[str, Any], metrics: Mapping[str, Curve]) -> str:
    """Say how far a run has come."""
    trainer, step = config.get("trainer"), last_step(metrics)
    most = trainer.get("max_steps") if isinstance(trainer, Mapping) else None
    if step is None:
        return "No step is logged yet"
    if not isinstance(most, int):
        return f"{step:,} steps are logged"
    if step >= most:
        return f"Finished, {step:,} steps"
    return f"Not finished: {step:,} of {most:,} steps are logged"


def summary(
    config: Mapping[str, Any], metrics: Mapping[str, Curve], tokenizer: Tokenizer | None
) -> list[Block]:
    """Say what matters most."""
    step = last_step(metrics)
    facts = [("steps", MISSING if step is None else f"{step:,}")]
    codebook, data = config.get("codebook"), config.get("data")
    if isinstance(codebook, Mapping):
        facts.append(("codebook", str(codebook.get("kind"))))
    size = data.get("image_size") if isinstance(data, Mapping) else None
    if isinstance(size, int):
        facts.append(("image size", f"{size} x {size} px"))
    if tokenizer is not None:
        facts += tokenizer_facts(tokenizer, size)
    blocks: list[Block] = [Facts(rows=facts, is_large=True)]
    rows = []
    for name, curve in metrics.items():
        side, _, metric = name.partition("/")
        last = curve.last()
        if side != "val" or last is None:
            continue
        lower = is_lower_better(metric)
        best = curve.best(is_lower_better=lower)
        is_judged = not metric.endswith("top1_share") and best is not None
        rows.append(
            [
                word(label(metric.removeprefix("codebook/"))),
                number(last[1], decimals=4),
                number(last[0]),
                number(best[1] if best and is_judged else None, decimals=4),
                number(best[0] if best and is_judged else None),
                word(("lower" if lower else "higher") if is_judged else None),
            ]
        )
    if rows:
        heads = ["metric", "last", "at step", "best", "at step", "better"]
        blocks.append(Table(caption="Validation", heads=heads, rows=rows))
    else:
        blocks.append(Text(text="No validation is logged yet."))
    return blocks


def tokenizer_facts(tokenizer: Tokenizer, size: object) -> list[tuple[str, str]]:
    """Say what a tokenizer is, in few numbers."""
    codebook = tokenizer.codebook
    facts: list[tuple[str, str]] = []
    if codebook.num_codebooks:
        several = f"{codebook.num_codebooks} x " if codebook.num_codebooks > 1 else ""
        facts.append(("codebook size", f"{several}{codebook.size:,} ids"))
    if isinstance(size, int) and size % tokenizer.downsampling == 0:
        shape = tokenizer.token_shape(size, size)
        if codebook.num_codebooks:
            product = " x ".join(map(str, shape))
            whole = f" = {math.prod(shape):,}" if len(shape) > 1 else ""
            facts.append(("tokens an image", product + whole))
        rate = bits_per_pixel(tokenizer, size, size)
        facts.append(("bits a pixel", "continuous" if rate is None else figure(rate)))
    count = sum(parameter.numel() for parameter in tokenizer.parameters())
    facts.append(("parameters", f"{count / 1e6:.2f} million"))
    return facts


def curve_blocks(metrics: Mapping[str, Curve], damaged: int) -> Sequence[Block]:
    """Show every metric, and say how many lines are missing."""
    blocks: list[Block] = []
    if damaged:
        lines = f"{damaged:,} line{'s' * (damaged != 1)} of {METRICS}"
        text = f"{lines} cannot be read: all that stands here and above is without them."
        blocks.append(Text(text=text, tone="warning"))
    blocks += charts_of(metrics)
    return blocks if metrics else [*blocks, Text(text="No metric is logged yet.")]


def picture_sections(album: Album, examined: Examined | None, trouble: str) -> list[Section]:
    """Show reconstructions, worst cases and the use of ids; or say why not."""
    if examined is None:
        blocks = [Text(text=trouble, tone="warning")]
        return [Section(key="reconstructions", title="Reconstructions", blocks=blocks)]
    count = f"{len(examined.values):,} of {examined.total:,} images of the validation"
    mean = math.fsum(examined.values) / len(examined.values)
    some = viewer_of("Reconstructions", examined.some, album.shelf(SOME_BYTES))
    worst = viewer_of("Worst cases", examined.worst, album.shelf(WORST_BYTES))
    text = f"The exported tokenizer on {count}; their mean PSNR is {mean:.2f} dB."
    if max(examined.some[0].original.shape) > MOST_SIDE:
        text += f" They are large: the middle is shown, {MOST_SIDE} px a side."
    intro = Text(text=text)
    sections = [
        Section(key="reconstructions", title="Reconstructions", blocks=[intro, *some]),
        Section(
            key="worst",
            title="Worst cases",
            blocks=[Text(text=f"Those with the lowest PSNR among {count}."), *worst],
        ),
    ]
    if examined.codebook is not None:
        use = codebook_blocks([("", examined.codebook)])
        ids: list[Block] = [Text(text=f"Ids in {count}."), *use]
        sections.append(Section(key="codebook", title="Use of the codebook", blocks=ids))
    return sections


def viewer_of(name: str, shown: Sequence[Shown], shelf: Shelf) -> list[Block]:
    """Make a viewer of as many images as fit."""
    items = []
    for each in shown:
        looks = {ORIGINAL: each.original, RECONSTRUCTION: each.reconstruction}
        if each.ids is not None:
            looks[IDS] = each.ids
        numbers = shelf.add(list(looks.values()))
        if numbers is None:
            continue
        value = f"{each.psnr:.2f} dB"
        captions = {RECONSTRUCTION: value}
        layers = [
            Layer(name=look, picture=picture, caption=captions.get(look, ""))
            for look, picture in zip(looks, numbers, strict=True)
        ]
        items.append(Item(name=each.key, layers=layers, caption=value))
    return viewer_blocks(name, items, RECONSTRUCTION, shelf)


def viewer_blocks(name: str, items: Sequence[Item], right: str, shelf: Shelf) -> list[Block]:
    """Make a viewer, with a sentence on what has no room in it."""
    blocks: list[Block] = [Viewer(label=name, items=items, right=right)] if items else []
    if shelf.left_out:
        left = "more are" if items else "are"
        text = f"{shelf.left_out} {left} left out, so that the page stays small enough to mail."
        blocks.append(Text(text=text, tone="note"))
    return blocks


def progress_blocks(run: Path, album: Album) -> list[Block]:
    """Show the same images over the steps of the training; nothing if there are no pictures."""
    files = sorted((run / "images").glob("step_*.png"))
    strips = {}
    for place in evenly(len(files), MOST_STEPS):
        strip = read_picture(files[place])
        if strip is None:
            continue
        step = files[place].stem.removeprefix("step_").lstrip("0") or "0"
        strips[f"step {int(step):,}" if step.isdecimal() else step] = cut_strip(strip)
    if not strips:
        return []
    shelf = album.shelf(PROGRESS_BYTES)
    count = min(MOST_PROGRESS, *(len(made) for _, made in strips.values()), MOST_PROGRESS)
    newest = list(strips)[-1]
    originals = strips[newest][0]
    items = []
    for place in range(count):
        looks = {ORIGINAL: originals[place]}
        looks |= {step: made[place] for step, (_, made) in strips.items()}
        numbers = shelf.add(list(looks.values()))
        if numbers is not None:
            layers = [
                Layer(name=look, picture=picture)
                for look, picture in zip(looks, numbers, strict=True)
            ]
            items.append(Item(name=f"picture {place + 1}", layers=layers))
    shown = f"{len(strips)} of {len(files)} validations" if len(files) > len(strips) else "each"
    intro = Text(
        text=f"The same pictures at {shown}." if shown != "each" else "At each validation."
    )
    return [intro, *viewer_blocks("Progress over training", items, newest, shelf)]


def environment(run: Path) -> list[Block]:
    """Show what the run was started with, and where."""
    try:
        facts = json.loads((run / ENVIRONMENT).read_text(encoding="utf-8"))
        command = facts.pop("command", None)
        rows = [
            (f"{name} {part}" if part else name, shown)
            for name, value in facts.items()
            for part, shown in flat(value)
        ]
    except (OSError, ValueError, AttributeError, TypeError):
        return [Text(text=f"There is no {ENVIRONMENT} that can be read.")]
    blocks: list[Block] = [Facts(rows=rows)]
    return [Code(text=shareable(str(command))), *blocks] if command else blocks


def flat(value: object) -> list[tuple[str, str]]:
    """Write plain data as rows."""
    if isinstance(value, Mapping):
        return [(str(key), str(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [("", ", ".join(map(str, value)) or MISSING)]
    return [("", MISSING if value is None else str(value))]
