"""Samples of an evaluation, the worst and the best among them, and what ids look like, as files."""

from collections.abc import Sequence
from pathlib import Path

from vqtrain.data.sources.index import SampleIndex
from vqtrain.evaluation import tables
from vqtrain.evaluation.code_images import FILE as CODES_FILE
from vqtrain.evaluation.code_images import draw_codes
from vqtrain.evaluation.models import MAX_NAME, Model
from vqtrain.evaluation.reconstructions import draw, file_name
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.metrics.base import Metric, SampleMetric


def save_extremes(
    entry: tables.Entry,
    model: Model,
    index: SampleIndex,
    metrics: Sequence[Metric],
    settings: SampleSettings,
    out: Path,
    *,
    worst: int,
    first: int,
) -> None:
    """Write the values of each sample, and draw some of them.

    Args:
        entry: What was measured.
        model: The tokenizer.
        index: The samples.
        metrics: Those that were measured; the first one with a value for each sample decides.
        settings: How samples are read.
        out: The folder of the evaluation.
        worst: Number of worst samples, and of best ones.
        first: Number of samples from the first one on, which are the same for every tokenizer.
    """
    folder = out / model.folder
    folder.mkdir(exist_ok=True)
    tables.write_per_image(entry, folder)
    if entry.measured.codes is not None:
        codes, transform = entry.measured.codes, model.transform
        picture = draw_codes(codes, model.tokenizer, index, transform, settings)
        if picture is not None:
            picture.save(folder / CODES_FILE)
    drawn: dict[str, Sequence[int]] = {"first": range(len(entry.keys))[:first]}
    for metric in [metric for metric in metrics if isinstance(metric, SampleMetric)][:1]:
        values = entry.measured.tokenizer.values[metric.name]
        order = sorted(range(len(values)), key=values.__getitem__)
        if not metric.higher_is_better:
            order.reverse()
        drawn |= {"worst": order[:worst], "best": order[::-1][:worst]}
    for word, places in drawn.items():
        for number, place in enumerate(places, start=1):
            pixels = model.transform.decode(index.read(entry.measured.image_ids[place]), None)
            images = model.tokenizer.to_images(pixels[None])
            panels = draw(model.tokenizer, images, settings, num_tokens=model.num_tokens)
            name = file_name(entry.keys[place], ()).replace("/", "-")[-MAX_NAME:]
            panels.save(folder / word, f"{number:02d}_{name}")
