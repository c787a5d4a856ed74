"""What probes say as one plot: rate against distortion, training curves, perturbed images."""

import io
import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from vqtrain.data.cache import write_whole
from vqtrain.generation.results import ProbeReport, TokenizerProbe
from vqtrain.generation.tables import PSNR

FILE = "probe.png"
SIDE_INCHES = 4.2
DOTS_PER_INCH = 110
LEGEND_COLUMNS = 4
# The palette of Okabe and Ito, for color-blind readers too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p")

RATE = "bits per pixel"

Curve = Sequence[tuple[float, float]]


def save_plot(report: ProbeReport, folder: Path) -> None:
    """Write ``probe.png``: a color and a shape for each tokenizer.

    Rate against distortion: the bits a pixel of the ids as they are stored (hollow), and those that
    the transformer needs, or the best model that counts where there is none. The training of the
    transformers. The PSNR of images of which a share of the ids is perturbed. Panels without any
    figure are left out.

    Raises:
        OSError: If it cannot be written.
    """
    from matplotlib.figure import Figure  # takes a second to import, and nothing else needs it
    from matplotlib.ticker import MaxNLocator

    panels = {
        (RATE, "PSNR (dB)"): rates_of,
        ("step of the transformer", "bits per pixel, held out"): training_of,
        ("share of ids perturbed", "PSNR (dB)"): perturbed_of,
    }
    drawn = {
        titles: curves
        for titles, curve_of in panels.items()
        if any(curves := [curve_of(found) for found in report.tokenizers])
    }
    if not drawn:
        (folder / FILE).unlink(missing_ok=True)  # of an earlier call
        return
    size = max(SIDE_INCHES * len(drawn), 6.0), SIDE_INCHES + 0.6
    figure = Figure(figsize=size, layout="constrained")
    for place, ((across, up), curves) in enumerate(drawn.items(), start=1):
        axes = figure.add_subplot(1, len(drawn), place)
        looks = zip(report.tokenizers, curves, cycle(COLORS), cycle(SHAPES), strict=False)
        for found, curve, color, shape in looks:
            xs, ys = [x for x, _ in curve], [y for _, y in curve]
            axes.plot(xs, ys, color=color, marker=shape, markersize=5, lw=1, label=found.name)
            if across == RATE:  # as they are stored
                axes.plot(xs[:1], ys[:1], shape, color=color, mfc="white", markersize=6)
        axes.set(xlabel=across, ylabel=up)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=True, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=LEGEND_COLUMNS,
        frameon=False,
        fontsize="small",
    )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    write_whole(folder / FILE, content.getvalue())


def rates_of(found: TokenizerProbe) -> Curve:
    """Return rate and PSNR: as stored, and as the best model that was tried encodes the ids."""
    psnr = found.reconstruction.get(PSNR, math.nan)
    if not math.isfinite(psnr):
        return []
    rates = [found.bits_per_pixel]
    if found.transformer is not None:
        rates.append(found.transformer.bits_per_pixel)
    elif found.entropy is not None:
        rates.append(min(found.entropy.bits_per_pixel.values()))
    return [(rate, psnr) for rate in rates]


def training_of(found: TokenizerProbe) -> Curve:
    """Return the bits a pixel after each validation of the transformer."""
    curve = found.transformer.curve if found.transformer is not None else []
    return [(float(point.step), point.bits_per_pixel) for point in curve]


def perturbed_of(found: TokenizerProbe) -> Curve:
    """Return the PSNR by share of perturbed ids, from 0 on."""
    if found.perturb is None or PSNR not in found.reconstruction:
        return []
    points = [(point.share, point.metrics[PSNR]) for point in found.perturb.points]
    return [(0.0, found.reconstruction[PSNR]), *points]
