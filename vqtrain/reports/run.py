"""The page of a training run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from vqtrain.data.decoding.base import Transform
from vqtrain.data.media import IMAGE, SOUND, media_of
from vqtrain.data.remote.urls import shareable
from vqtrain.data.sources.index import SampleIndex
from vqtrain.drawing.panels import panel_size
from vqtrain.errors import ConfigError, VqtrainError
from vqtrain.evaluation.baselines import bits_per_pixel, kbit_per_second
from vqtrain.metrics.base import SampleMetric
from vqtrain.metrics.parts.declarations import declaration
from vqtrain.reports.blocks import (
    MISSING,
    Block,
    Cell,
    Code,
    Facts,
    Page,
    Text,
    figure,
    number,
    sections_of,
    table,
    word,
)
from vqtrain.reports.codebook import codebook_blocks
from vqtrain.reports.configuration import configuration
from vqtrain.reports.examine import Examined, Shown, examine, open_validation
from vqtrain.reports.images import (
    MOST_SIDE,
    ORIGINAL,
    RECONSTRUCTION,
    Budget,
    PageImages,
    evenly,
    read_image,
    split_strip,
)
from vqtrain.reports.players import Played, players
from vqtrain.reports.series import charts_of, label
from vqtrain.shapes import by, in_words
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.rate import size_in
from vqtrain.training.results import (
    ENVIRONMENT,
    METRICS,
    RunResult,
    commands_of,
    read_config,
    read_run,
)

# Bytes of the images of each section, which keep a page well below 5 MB.
SOME_BYTES, WORST_BYTES, PROGRESS_BYTES = 1_300_000, 700_000, 1_000_000
MOST_SHOWN, MOST_STEPS, MOST_PROGRESS = 12, 8, 8
# Of the clips or sounds that play, of each of two sections.
PLAYED_BYTES = 700_000


@final
@dataclass(frozen=True, kw_only=True)
class Held:
    """The validation images of a run that are already open.

    Attributes:
        index: The images.
        transform: From images to the tokenizer's input.
    """

    index: SampleIndex
    transform: Transform


def run_page(
    run_dir: Path,
    *,
    other: Path | None,
    limit: int,
    device: torch.device,
    held: Held | None,
    allow: Sequence[str] = (),
) -> Page:
    """Make the page of a run directory.

    Args:
        run_dir: The run directory.
        other: Another run to compare the configuration with, or None.
        limit: Largest number of images that its tokenizer is measured on.
        device: The device of that.
        held: These images, if they are already open.
        allow: Packages outside vqtrain whose classes its tokenizer may name.

    Raises:
        ConfigError: If a configuration cannot be read.
    """
    run = read_run(run_dir)
    compared = None if other is None else (str(other), read_config(other))
    images = PageImages()
    trains_tokenizer = run.setting("steps", int) is None  # which the run of a probe has
    tokenizer, why_not = load_tokenizer(run_dir, allow) if trains_tokenizer else (None, "")
    examined = None
    if tokenizer is not None:
        examined, why_not = examine_run(tokenizer, run, limit=limit, device=device, held=held)
    sections: dict[str, tuple[str, Sequence[Block]]] = {
        "summary": ("Summary", summary(run, tokenizer)),
        "curves": ("Curves", curve_blocks(run)),
        **(examined_sections(images, examined, why_not) if trains_tokenizer else {}),
        "progress": ("Progress", progress_blocks(run, images)),
        "configuration": ("Configuration", configuration(run.config, compared)),
        "environment": ("Environment", environment(run)),
    }
    return Page(
        title=run.setting("name", str) or run_dir.name,
        kind="Training run",
        subtitle=state_of(run),
        sections=sections_of(sections),
        images=images.uris,
    )


def load_tokenizer(run_dir: Path, allow: Sequence[str]) -> tuple[Tokenizer | None, str]:
    """Load a run's tokenizer, or return None and the reason."""
    if not (run_dir / "tokenizer").is_dir():
        return None, "This run has no tokenizer yet: it is exported at each checkpoint."
    try:
        # Building modules draws random numbers, which must not change those of a run.
        with torch.random.fork_rng(devices=[]):
            return Tokenizer.from_pretrained(run_dir / "tokenizer", allow=allow), ""
    except VqtrainError as error:
        return None, f"The tokenizer cannot be loaded: {error}."


def examine_run(
    tokenizer: Tokenizer, run: RunResult, *, limit: int, device: torch.device, held: Held | None
) -> tuple[Examined | None, str]:
    """Measure a run's tokenizer on validation images, or return None and the reason."""
    try:
        if held is None:
            index, transform = open_validation(run)
        else:
            index, transform = held.index, held.transform
        found = examine(tokenizer, index, transform, limit=limit, shown=MOST_SHOWN, device=device)
    except VqtrainError as error:
        return None, f"The validation images cannot be shown: {shareable(str(error))}."
    return found, ""


def state_of(run: RunResult) -> str:
    """Describe the progress of a run."""
    step = run.step
    most = run.setting("trainer.max_steps", int) or run.setting("steps", int)  # of a model over ids
    if step is None:
        return "No steps are logged yet"
    if most is None:
        return f"{step:,} steps are logged"
    return (
        f"Finished, {step:,} steps"
        if step >= most
        else f"Not finished: {step:,} of {most:,} steps are logged"
    )


def summary(run: RunResult, tokenizer: Tokenizer | None) -> list[Block]:
    """Show the most important facts."""
    size, kind = sample_size(run), run.setting("codebook.kind", str)
    facts = [("steps", MISSING if run.step is None else f"{run.step:,}")]
    facts += [("codebook", kind)] if kind else []
    facts += [(f"{media_of(len(size)).noun} size", in_words(size))] if size else []
    facts += tokenizer_facts(tokenizer, size) if tokenizer else []
    rows = list(validation_rows(run))
    no_rows = Text(text="No validation is logged yet.")
    return [Facts(rows=facts, is_large=True), table("Validation", rows) if rows else no_rows]


def sample_size(run: RunResult) -> tuple[int, ...] | None:
    """Return the size of the run's samples, if it is known."""
    return size_in(run.setting("data", dict) or {})


def validation_rows(run: RunResult) -> Iterator[dict[str, Cell]]:
    """Show the last and the best value of each validation metric."""
    for name, curve in run.metrics.items():
        side, _, metric = name.partition("/")
        last = curve.last()
        if side != "val" or last is None:
            continue
        declared = declaration(metric)
        best = curve.best(is_lower_better=declared.lower_is_better)
        row = {
            "metric": word(label(metric.removeprefix("codebook/"))),
            "last": number(last[1], decimals=4),
            "at step": number(last[0]),
        }
        if best is not None and declared.higher_is_better is not None:
            row |= {
                "best": number(best[1], decimals=4),
                "best at step": number(best[0]),
                "better": word("lower" if declared.lower_is_better else "higher"),
            }
        yield row


def tokenizer_facts(tokenizer: Tokenizer, size: Sequence[int] | None) -> list[tuple[str, str]]:
    """Describe a tokenizer in a few numbers."""
    codebook = tokenizer.codebook
    facts: list[tuple[str, str]] = []
    if codebook.num_codebooks:
        several = f"{codebook.num_codebooks} x " if codebook.num_codebooks > 1 else ""
        facts.append(("codebook size", f"{several}{codebook.size:,} ids"))
    facts += rate_facts(tokenizer, size) if size else []
    count = sum(parameter.numel() for parameter in tokenizer.parameters())
    facts.append(("parameters", f"{count / 1e6:.2f} million" if count >= 1e5 else f"{count:,}"))
    return facts


def rate_facts(tokenizer: Tokenizer, size: Sequence[int]) -> list[tuple[str, str]]:
    """Give tokens and bits of samples of a size; nothing if the size does not fit."""
    try:
        shape = tokenizer.token_shape(*size)
        rate = bits_per_pixel(tokenizer, size)
    except ConfigError:
        return []
    media, speed = media_of(len(size)), kbit_per_second(tokenizer, size)
    unit = f"bits per {'value' if media is SOUND else 'pixel'}"
    if rate is None:
        return [(unit, "continuous")]
    whole = f" = {math.prod(shape):,}" if len(shape) > 1 else ""
    facts = [(f"tokens per {media.noun}", by(shape) + whole), (unit, figure(rate))]
    return [*facts, ("kbit/s", figure(speed))] if speed is not None else facts


def curve_blocks(run: RunResult) -> list[Block]:
    """Show every metric, and count the damaged lines."""
    blocks: list[Block] = []
    if run.damaged:
        lines = f"{run.damaged:,} line{'s' * (run.damaged != 1)} of {METRICS}"
        text = f"{lines} cannot be read and are not included."
        blocks.append(Text(text=text, tone="warning"))
    blocks += charts_of(run.metrics)
    return blocks if run.metrics else [*blocks, Text(text="No metric is logged yet.")]


def examined_sections(
    images: PageImages, examined: Examined | None, why_not: str
) -> dict[str, tuple[str, Sequence[Block]]]:
    """Show reconstructions, worst cases and codebook usage, or the reason why not."""
    if examined is None:
        return {"reconstructions": ("Reconstructions", [Text(text=why_not, tone="warning")])}
    noun, metric = examined.media.noun, examined.metric
    count = f"{len(examined.values):,} of {examined.total:,} validation {noun}s"
    mean = math.fsum(examined.values) / len(examined.values)
    text = f"The exported tokenizer on {count}: mean {metric.title} {mean:.2f} {metric.unit}."
    if max(examined.some[0].versions[ORIGINAL].shape) > MOST_SIDE:
        text += f" The {noun}s are large: the middle is shown, {MOST_SIDE} px a side."
    some = viewer_of("Reconstructions", examined.some, metric, Budget(images, SOME_BYTES))
    worst = viewer_of("Worst cases", examined.worst, metric, Budget(images, WORST_BYTES))
    lowest = Text(text=f"The {noun}s with the lowest {metric.title} of {count}.")
    sections: dict[str, tuple[str, Sequence[Block]]] = {
        "reconstructions": ("Reconstructions", [Text(text=text), *some]),
        "worst": ("Worst cases", [lowest, *worst]),
    }
    if examined.codebook is not None:
        ids = [Text(text=f"Ids of {count}."), *codebook_blocks({"": examined.codebook})]
        sections["codebook"] = ("Codebook usage", ids)
    return sections


def viewer_of(
    name: str, shown: Sequence[Shown], metric: SampleMetric, budget: Budget
) -> list[Block]:
    """Make a viewer of as many samples as fit, and players below it of those that play."""
    captions = [f"{each.value:.2f} {metric.unit}" for each in shown]
    items = [
        item
        for each, caption in zip(shown, captions, strict=True)
        for item in budget.item(each.key, each.versions, caption=caption)
    ]
    played = [
        Played(name=each.key, caption=caption, files=each.files, stills=each.stills)
        for each, caption in zip(shown, captions, strict=True)
    ]
    viewer = budget.viewer(name, items, right=RECONSTRUCTION)
    return [*viewer, *players(name, played, limit=PLAYED_BYTES)]


def progress_blocks(run: RunResult, images: PageImages) -> list[Block]:
    """Show the same samples over the steps of the training; nothing if there are no images."""
    files = sorted((run.run_dir / "images").glob("step_*.png"))
    size, strips = sample_size(run), {}
    panel = list(panel_size(size)) if size else 1
    for place in evenly(len(files), MOST_STEPS):
        strip = read_image(files[place])
        if strip is not None:
            step = files[place].stem.removeprefix("step_")
            name = f"step {int(step):,}" if step.isdecimal() else step
            strips[name] = split_strip(strip, panel)
    if not strips:
        return []
    budget = Budget(images, PROGRESS_BYTES)
    count = min(MOST_PROGRESS, *(len(decoded) for _, decoded in strips.values()))
    newest = list(strips)[-1]
    noun = media_of(len(size)).noun if size else IMAGE.noun
    items = []
    for place in range(count):
        versions = {ORIGINAL: strips[newest][0][place]}
        versions |= {step: decoded[place] for step, (_, decoded) in strips.items()}
        items += budget.item(f"{noun} {place + 1}", versions)
    of = (
        f"{len(strips)} of {len(files)} validations"
        if len(files) > len(strips)
        else "each validation"
    )
    intro = Text(text=f"The same {noun}s at {of}.")
    return [intro, *budget.viewer("Progress over training", items, right=newest)]


def environment(run: RunResult) -> list[Block]:
    """Show the command lines, versions and hardware of the run."""
    if not run.environment:
        return [Text(text=f"{ENVIRONMENT} is missing or damaged.")]
    commands = commands_of(run.environment)
    facts = {k: v for k, v in run.environment.items() if k not in ("command", "commands")}
    rows = [row for name, value in facts.items() for row in flat(name, value)]
    blocks: list[Block] = [Facts(rows=rows)]
    return [*(Code(text=shareable(command)) for command in commands), *blocks]


def flat(name: str, value: object) -> list[tuple[str, str]]:
    """Write plain data as rows."""
    if isinstance(value, Mapping):
        return [(f"{name} {key}", str(item)) for key, item in value.items()]
    shown = ", ".join(map(str, value)) if isinstance(value, list) else value
    return [(name, MISSING if shown in (None, "") else str(shown))]
