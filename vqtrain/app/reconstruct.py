"""``vqtrain reconstruct``: images, their reconstructions and their ids side by side."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, final

from rich.console import Console

from vqtrain.app.base import Command
from vqtrain.app.parts.output import ending_in_order, fill_whole, new_folder
from vqtrain.app.parts.progress import shown_progress
from vqtrain.app.parts.sources import SampleSources, check_media
from vqtrain.data.decoding.crops import CROPS
from vqtrain.data.settings.image import ImageSize
from vqtrain.data.sources.find import open_samples
from vqtrain.errors import require
from vqtrain.evaluation.reconstructions import draw, draw_all, metric_of, read_samples
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.metrics.base import SampleMetric
from vqtrain.ops.precision import TRAINED_PRECISIONS
from vqtrain.ranges import at_least, one_of
from vqtrain.tokenizer.any_size import AnySize
from vqtrain.tokenizer.model import Tokenizer

MAX_NAMED = 3


@final
class Reconstruct(Command):
    """Draws samples next to their reconstructions."""

    def run(
        self,
        *,
        tokenizer: str,
        allow: list[str],
        sources: SampleSources,
        out: str,
        limit: Annotated[int, at_least(1)] | None,
        image_size: ImageSize | None,
        frames: Annotated[int, at_least(1)] | None,
        length: Annotated[int, at_least(1)] | None,
        crop: Annotated[str, one_of(*CROPS)],
        any_size: AnySize,
        device: str,
        precision: Annotated[str, one_of(*TRAINED_PRECISIONS)],
    ) -> int:
        """Reconstruct, and say what came of it."""
        settings = SampleSettings(
            image_size=image_size,
            frames=frames,
            length=length,
            crop=crop,
            batch_size=1,
            num_workers=0,
            device=device,
            precision=precision,
        )
        images, media = sources.named("vqtrain reconstruct tokenizer=PATH images=IMAGES")
        loaded = settings.placed(Tokenizer.from_pretrained(tokenizer, allow=allow))
        check_media(media, loaded, tokenizer)
        any_size.check(loaded.encoder)
        require(
            image_size is None or not any_size.keeps_whole,
            "image_size crops images, which max_tokens, pad and thumbnail keep whole: leave it out",
        )
        index = open_samples(images, media, role="validation")
        folder = new_folder(out)
        console = Console(highlight=False, soft_wrap=True)
        total, metric = min(len(index), limit or len(index)), metric_of(media.axes)
        lines_file = f"{metric.name}.jsonl"
        with ending_in_order(), shown_progress(console, "reading", media.noun) as progress:
            rows, faults = fill_whole(
                folder,
                lambda unfinished: draw_all(
                    read_samples(index, loaded, settings, total, any_size),
                    unfinished,
                    draw=lambda samples: draw(loaded, samples, settings, any_size),
                    lines_file=lines_file,
                    progress=lambda done: progress(str(folder), done, total),
                ),
            )
        damaged = [f"{fault.key or fault.shard}: {fault.reason}" for fault in index.faults]
        console.print(f"{f'{media.noun}s':<12}{len(rows):,} in {folder}", markup=False)
        conclude(console, folder / lines_file, metric, rows, [*damaged, *faults])
        return 0


def conclude(
    console: Console,
    lines_file: Path,
    metric: SampleMetric,
    rows: Sequence[Mapping[str, Any]],
    faults: Sequence[str],
) -> None:
    """Say how well it went, and where the figures are."""
    ordered = sorted(rows, key=lambda row: float(row[metric.name]))
    mean = math.fsum(row[metric.name] for row in rows) / len(rows)
    unit = metric.unit
    console.print(
        f"{f'mean {metric.title}':<12}{mean:.2f} {unit}, all in {lines_file}", markup=False
    )
    for word, row in (("worst", ordered[0]), ("best", ordered[-1])):
        console.print(f"{word:<12}{row[metric.name]:.2f} {unit}, {row['file']}", markup=False)
    if faults:
        console.print(f"{'skipped':<12}{len(faults):,}", markup=False)
    for line in faults[:MAX_NAMED]:
        console.print(f"{'':<12}{line}", markup=False)
