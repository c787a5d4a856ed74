"""The worst and the best samples of an evaluation, and what single ids look like, as files."""

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
    count: int,
    out: Path,
) -> None:
    """Write the values of each sample, and draw the worst and the best of them."""
    folder = out / model.folder
    folder.mkdir(exist_ok=True)
    tables.write_per_image(entry, folder)
    if entry.measured.codes is not None:
        codes, transform = entry.measured.codes, model.transform
        picture = draw_codes(codes, model.tokenizer, index, transform, settings)
        if picture is not None:
            picture.save(folder / CODES_FILE)
    for metric in [metric for metric in metrics if isinstance(metric, SampleMetric)][:1]:
        values = entry.measured.tokenizer.values[metric.name]
        order = sorted(range(len(values)), key=values.__getitem__)
        if not metric.higher_is_better:
            order.reverse()
        for word, places in (("worst", order[:count]), ("best", order[::-1][:count])):
            for number, place in enumerate(places, start=1):
                pixels = model.transform.decode(index.read(entry.measured.image_ids[place]), None)
                images = model.tokenizer.to_images(pixels[None])
                drawn = draw(model.tokenizer, images, settings, num_tokens=model.num_tokens)
                name = file_name(entry.keys[place], ()).replace("/", "-")[-MAX_NAME:]
                drawn.save(folder / word, f"{number:02d}_{name}")
