"""The page of a probe: how well models can generate on tokenizers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vqtrain.data.remote.urls import shareable
from vqtrain.generation.grid import MARGIN
from vqtrain.generation.ranks import RankCorrelation
from vqtrain.generation.results import (
    FILE,
    STAGES,
    ProbeReport,
    TokenizerProbe,
    TransformerResult,
    read_probe,
)
from vqtrain.generation.tables import correlations_of
from vqtrain.metrics.parts.declarations import declaration
from vqtrain.reports.blocks import (
    MISSING,
    Block,
    Cell,
    Charts,
    Facts,
    Item,
    Page,
    Text,
    figure,
    number,
    sections_of,
    table,
    word,
)
from vqtrain.reports.charts import Axis, Line, Point, curves, scatter
from vqtrain.reports.evaluation import size_cell
from vqtrain.reports.images import MOST_SIDE, RGB, Budget, PageImages, read_image
from vqtrain.reports.series import label, metric_axis
from vqtrain.shapes import ImageSize, sides
from vqtrain.sweeps.results import ahead

IMAGE_BYTES = 3_500_000
MOST_NAMED = 3
SAMPLES = "samples.png"
RATE = "bits_per_pixel"
REAL, SAMPLED = "real images", "sampled images"
MEANINGS = {
    "bits/px": "the ids as they are stored: log2 of their number, for each id, by the pixels of an "
    "image. Bits per pixel compare tokenizers with different numbers of ids and tokens; bits per "
    "token do not.",
    "PSNR, SSIM, ...": "the reconstructions of held-out images, from their own ids: a model that "
    "generates cannot be better than this.",
    "entropy bits/px": "the held-out ids under a model that counts ids and their neighbors, in "
    "seconds and without a network: an upper bound of what they hold.",
    "model bits/px": "the held-out ids under a transformer that was trained on the ids of other "
    "images, as large and as long as the budget allows, which is the same for all tokenizers. "
    "Fewer bits: a model predicts the tokens more easily.",
    "perturbed": "held-out images of which a share of the ids was replaced by one of the nearest "
    "codes: how much a decoder forgives the mistakes of a model.",
    "sampled images": "what the transformer has drawn, decoded; the only figure of generation "
    "itself, and the one that depends most on the budget.",
}
KINDS = {"causal": "one id after the other", "masked": "masked ids", "next_scale": "next scale"}


def is_probe(path: Path) -> bool:
    """Say whether a folder is that of a probe."""
    return (path / FILE).is_file()


def probe_page(folder: Path) -> Page:
    """Make the page of a probe, of one tokenizer or of several.

    Raises:
        ConfigError: If its results cannot be read.
    """
    report = read_probe(folder)
    found = report.tokenizers
    images = PageImages()
    sections: dict[str, tuple[str, Sequence[Block]]] = {
        "results": ("Results", [*results_blocks(found), *agreement(correlations_of(report))]),
        "rate": ("Rate and distortion", rate_blocks(found)),
        "transformers": ("Transformers", transformer_blocks(found)),
        "perturbed": ("Perturbed ids", perturbed_blocks(found)),
        "entropy": ("Code lengths of models that count", entropy_blocks(found)),
        "samples": ("Samples", sample_blocks(folder, found, images)),
        "cost": ("Cost", cost_blocks(found)),
        "settings": ("Images and settings", settings_blocks(report)),
    }
    names = ", ".join(each.name for each in found)
    stages = [stage for stage in STAGES if any(getattr(each, stage) for each in found)]
    return Page(
        title=names if len(found) <= MOST_NAMED else f"{len(found)} tokenizers",
        kind="Probe",
        subtitle=f"{len(found)} tokenizer{'s' * (len(found) > 1)}: "
        f"{', '.join(stages) or 'nothing is measured yet'}",
        sections=sections_of(sections),
        images=images.uris,
    )


def results_blocks(found: Sequence[TokenizerProbe]) -> list[Block]:
    """Make the table that compares tokenizers, and say what its figures mean."""
    metrics = metric_names([each.reconstruction for each in found])
    rows = []
    for each in found:
        row = {
            "tokenizer": word(each.name),
            "codebook": word(each.kind),
            "ids": codes_cell(each),
            "tokens": number(each.tokens_per_image),
            "px": size_cell(each.image_size),
            "bits/px": number(each.bits_per_pixel, decimals=4),
            **{label(name): number(each.reconstruction.get(name), decimals=4) for name in metrics},
        }
        if each.entropy is not None:
            bits = each.entropy.bits_per_pixel.get("context")
            row["entropy bits/px"] = number(bits, decimals=4)
        if each.transformer is not None:
            row["model bits/px"] = number(each.transformer.bits_per_pixel, decimals=4)
        if each.perturb is not None and each.perturb.middle is not None:
            point = each.perturb.middle
            head = f"PSNR, {point.share:.0%} perturbed"
            row[head] = number(point.metrics.get("psnr"), decimals=4)
        if each.samples is not None:
            own = each.samples.metrics.items()
            row |= {f"samples {label(name)}": number(n, decimals=4) for name, n in own}
        rows.append(row)
    return [table("Tokenizers", rows), Facts(rows=list(MEANINGS.items()))]


def agreement(found: Sequence[RankCorrelation]) -> list[Block]:
    """Make a table of how alike figures order the tokenizers; nothing if there are none."""
    rows = [
        {
            "order by": word(each.first),
            "and by": word(each.second),
            "rank correlation": number(each.value, decimals=2),
            "tokenizers": number(each.count),
        }
        for each in found
    ]
    note = "1: both orders from best to worst are the same; -1: one is the other backwards."
    return [table("Do the probes agree?", rows, notes=[note])] if rows else []


def codes_cell(found: TokenizerProbe) -> Cell:
    """Say how many ids there are, of how many codebooks."""
    several = f"{found.num_codebooks} x " if found.num_codebooks > 1 else ""
    return Cell(text=f"{several}{figure(found.size)}", value=found.size, is_number=True)


def metric_names(groups: Sequence[Mapping[str, float]]) -> list[str]:
    """List all metrics of several groups."""
    return list(dict.fromkeys(name for group in groups for name in group))


def model_rate(found: TokenizerProbe) -> tuple[str, float] | None:
    """Return the best model that was tried on the ids, and its bits per pixel."""
    if found.transformer is not None:
        return "the transformer", found.transformer.bits_per_pixel
    if found.entropy is not None and "context" in found.entropy.bits_per_pixel:
        return "the model that counts", found.entropy.bits_per_pixel["context"]
    return None


def rate_blocks(found: Sequence[TokenizerProbe]) -> list[Block]:
    """Draw bits per pixel, of the ids and of a model of them, against each metric."""
    charts = []
    for name in metric_names([each.reconstruction for each in found]):
        sign = -1.0 if declaration(name).lower_is_better else 1.0
        rated = {
            place: (known[1], sign * each.reconstruction[name])
            for place, each in enumerate(found)
            if name in each.reconstruction
            and (known := model_rate(each)) is not None
            and math.isfinite(known[1])
        }
        leading = ahead(rated)
        points = [
            point
            for place, each in enumerate(found)
            for point in rate_points(each, name, is_ahead=place in leading)
        ]
        rate = Axis(key=RATE, title="bits per pixel")
        charts.append(scatter(label(name), points, xs=[rate], ys=[metric_axis(name)]))
    if not charts:
        return []
    text = (
        "The rate-distortion curve of the tokenizers. A filled point is at the bits that a model "
        "needs for the ids of held-out images, a hollow one at the bits of the ids as they are "
        "stored. A line joins the filled points that no other beats at the same or a lower rate."
    )
    return [Text(text=text), Charts(title="", charts=charts)]


def rate_points(found: TokenizerProbe, metric: str, *, is_ahead: bool) -> list[Point]:
    """Make the points of a tokenizer: the ids as they are stored, and under a model."""
    value = found.reconstruction.get(metric)
    rates = [("the ids as they are stored", found.bits_per_pixel, True)]
    if (known := model_rate(found)) is not None:
        rates.append((*known, False))
    return [
        Point(
            name=f"{found.name}, {of}",
            group=found.name,
            values={RATE: rate, metric: value},
            is_hollow=is_raw,
            frontier=[metric] if is_ahead and not is_raw else [],
        )
        for of, rate, is_raw in rates
    ]


def transformer_blocks(found: Sequence[TokenizerProbe]) -> list[Block]:
    """Draw the training of the transformers, and list them."""
    trained = [(each.name, each.transformer) for each in found if each.transformer is not None]
    if not trained:
        return []
    lines = [
        Line(
            name=name,
            x=np.array([point.step for point in each.curve], dtype=np.float64),
            y=np.array([point.bits_per_pixel for point in each.curve], dtype=np.float64),
        )
        for name, each in trained
        if each.curve
    ]
    text = "Bits per pixel of held-out images at each validation; the figures are of the best one."
    chart = curves("Held-out code length", lines, x="step", y="bits per pixel", can_be_log=True)
    rows = [{"tokenizer": word(name), **transformer_row(each)} for name, each in trained]
    note = "The code length is exact, or an upper bound where ids are predicted in any order."
    shown: list[Block] = [Charts(title="", charts=[chart])] if lines else []
    return [Text(text=text), *shown, table("Transformers", rows, notes=[note])]


def transformer_row(found: TransformerResult) -> dict[str, Cell]:
    """Describe a transformer and its training."""
    return {
        "predicts": word(KINDS[found.kind]),
        "bits/px": number(found.bits_per_pixel, decimals=4),
        "bits/token": number(found.bits_per_token, decimals=4),
        "code length": word("upper bound" if found.is_bound else "exact"),
        "blocks": number(found.depth),
        "channels": number(found.dim),
        "parameters": number(found.parameters),
        "steps": number(found.steps),
        "images seen": number(found.images_seen),
        "FLOPs": Cell(text=f"{found.flops:.3g}", value=found.flops, is_number=True),
    }


def perturbed_blocks(found: Sequence[TokenizerProbe]) -> list[Block]:
    """Draw each metric by the share of ids that were replaced."""
    perturbed = [(each, each.perturb) for each in found if each.perturb is not None]
    names = metric_names([point.metrics for _, result in perturbed for point in result.points])
    charts = []
    for name in names:
        lines = []
        for each, result in perturbed:
            shares = [0.0, *(100 * point.share for point in result.points)]
            values = [each.reconstruction, *(point.metrics for point in result.points)]
            y = np.array([value.get(name, math.nan) for value in values])
            lines.append(Line(name=each.name, x=np.array(shares), y=y))
        x, y_title = "share of the ids replaced (%)", declaration(name).axis
        charts.append(curves(label(name), lines, x=x, y=y_title))
    if not charts:
        return []
    counts = ", ".join(map(str, sorted({result.neighbors for _, result in perturbed})))
    text = (
        f"Held-out images decoded after a share of their ids was replaced by one of the {counts} "
        "nearest other codes, as a model does that is nearly right. A flat curve: the decoder "
        "forgives."
    )
    return [Text(text=text), Charts(title="", charts=charts)]


def entropy_blocks(found: Sequence[TokenizerProbe]) -> list[Block]:
    """List the code lengths under models that count."""
    measured = [(each.name, each.entropy) for each in found if each.entropy is not None]
    rows = [
        {
            "tokenizer": word(name),
            **{f"{n} bits/token": number(v, decimals=4) for n, v in each.bits_per_token.items()},
            **{f"{n} bits/px": number(v, decimals=4) for n, v in each.bits_per_pixel.items()},
        }
        for name, each in measured
    ]
    text = (
        "Held-out ids under models that are fitted by counting the ids of the training images: "
        "marginal knows how often each id occurs, position where in the image, context what is "
        "next to it. Compressed: LZMA on the ids of training images, as a model that knows nothing."
    )
    return [Text(text=text), table("Code lengths", rows)] if rows else []


def sample_blocks(folder: Path, found: Sequence[TokenizerProbe], images: PageImages) -> list[Block]:
    """Show sampled images beside real ones."""
    budget = Budget(images, IMAGE_BYTES)
    items: list[Item] = []
    for each in found:
        own = folder / Path(each.name).name / SAMPLES
        picture = read_image(own if own.is_file() else folder / SAMPLES)
        if each.samples is not None and picture is not None:
            caption = f"{each.samples.count:,} were drawn"
            items += budget.item(each.name, halves(picture, each.image_size), caption=caption)
    if not items:
        return []
    text = "Real held-out images, on the left, and what the transformer has drawn, on the right."
    return [Text(text=text), *budget.viewer("Samples", items, right=SAMPLED)]


def halves(picture: RGB, size: ImageSize) -> dict[str, RGB]:
    """Split a picture of real images above sampled ones; of large images, fewer are shown."""
    half = (picture.shape[0] + MARGIN) // 2
    parts = {REAL: picture[: half - MARGIN], SAMPLED: picture[half:]}
    pitches = [side + MARGIN for side in sides(size)]
    rows, columns = (max(1, (MOST_SIDE + MARGIN) // pitch) * pitch - MARGIN for pitch in pitches)
    return {name: part[:rows, :columns] for name, part in parts.items()}


def cost_blocks(found: Sequence[TokenizerProbe]) -> list[Block]:
    """List the seconds of each stage."""
    rows = []
    for each in found:
        stages = {stage: getattr(each, stage) for stage in STAGES}
        seconds = {stage: result.seconds for stage, result in stages.items() if result is not None}
        cells = {f"{stage} (s)": number(n, decimals=1) for stage, n in seconds.items()}
        if cells:
            rows.append(
                {
                    "tokenizer": word(each.name),
                    **cells,
                    "all (s)": number(math.fsum(seconds.values()), decimals=1),
                }
            )
    note = "Seconds on the machine of the probe; unreliable on a busy one."
    return [table("Time of each stage", rows, notes=[note])] if rows else []


def settings_blocks(report: ProbeReport) -> list[Block]:
    """Say on which images and with what all was measured."""
    paths = [(f"path of {each.name}", shareable(each.path)) for each in report.tokenizers]
    groups = [flat(report.images), flat(report.settings), [("vqtrain", report.vqtrain), *paths]]
    return [Facts(rows=rows) for rows in groups if rows]


def flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Write nested plain data as rows."""
    rows = []
    for key, value in values.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{name} ")
        else:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            rows.append((name, shareable(MISSING if value is None else shown)))
    return rows
