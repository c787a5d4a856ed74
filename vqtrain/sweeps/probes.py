"""What the probe of a run has found: its figures, by name."""

import math
from collections.abc import Sequence
from pathlib import Path

from vqtrain.errors import ConfigError
from vqtrain.generation import results
from vqtrain.generation.results import TokenizerProbe
from vqtrain.sweeps.job import SweepJob

ENTROPY_RATE, MODEL_RATE, PERTURBED = (
    *("entropy_bits_per_pixel", "probe_bits_per_pixel", "perturbed_psnr"),
)
PROBE_TITLES = {
    ENTROPY_RATE: "bits per pixel, of a context model",
    MODEL_RATE: "bits per pixel, of the transformer",
    PERTURBED: "PSNR of perturbed ids (dB)",
}
# In tables.
HEADS = {ENTROPY_RATE: "entropy bits/px", MODEL_RATE: "model bits/px", PERTURBED: "perturbed psnr"}


def read_probe(folder: Path) -> TokenizerProbe | None:
    """Return the results of a run's probe; None if they are missing or damaged."""
    try:
        (found,) = results.read_probe(folder).tokenizers
    except (ConfigError, ValueError):
        return None
    return found


def is_probed(job: SweepJob, stages: Sequence[str]) -> bool:
    """Say whether a run has the results of all stages; one without ids needs none."""
    if not job.has_ids or not stages:
        return True
    found = read_probe(job.probe)
    return found is not None and all(getattr(found, stage) is not None for stage in stages)


def figures_of(probe: TokenizerProbe) -> dict[str, float]:
    """Return the figures of a probe that compare tokenizers, by name."""
    found: dict[str, float] = {}
    if probe.entropy is not None:
        found[ENTROPY_RATE] = probe.entropy.bits_per_pixel.get("context", math.nan)
    if probe.transformer is not None:
        found[MODEL_RATE] = probe.transformer.bits_per_pixel
    if probe.perturb is not None and probe.perturb.middle is not None:
        found[PERTURBED] = probe.perturb.middle.metrics.get("psnr", math.nan)
    if probe.samples is not None:
        found |= {f"samples_{name}": value for name, value in probe.samples.metrics.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}
