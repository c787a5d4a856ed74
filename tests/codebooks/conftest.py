"""Every codebook in a small size, and variants of them, for the tests that hold for all."""

from collections.abc import Callable
from functools import cache as once
from typing import Any

import pytest

from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import build, configs_folder
from vqtrain.codebooks.base import Codebook
from vqtrain.ranges import resolve_fractions

KINDS = sorted(path.stem for path in (configs_folder() / "codebook").glob("*.yaml"))

# Options that change what a codebook does, and codebooks inside others.
OPTIONS = {
    "ema-normalized": ["ema", "l2_normalize=true", "gradient=rotation", "kmeans_iterations=3"],
    "ema-sampled": ["ema", "sampling_temperature=0.5"],
    "ema-never-restarted": ["ema", "restart_below=0"],
    "vq-normalized": ["vq", "l2_normalize=true", "gradient=rotation", "kmeans_iterations=3"],
    "vq-entropy": ["vq", "entropy_weight=0.1", "sampling_temperature=0.5"],
    "vq-never-restarted": ["vq", "restart_below=0"],
    "gumbel-wide": ["gumbel", "latent_dim=7"],
    "simvq-rotation": ["simvq", "gradient=rotation"],
    "lfq-groups": ["lfq", "group_bits=2"],
    "bsq-groups": ["bsq", "group_bits=3"],
    "fsq-levels": ["fsq", "size=null", "levels=[2,3,4]"],
    "residual-shared": ["residual", "shared=true", "num_codebooks=3"],
    "residual-dropout": ["residual", "quantizer_dropout=true"],
    "residual-vq": ["residual", "inner=vq"],
    "residual-lfq": ["residual", "inner=lfq", "shrink=0.5"],
    "residual-fsq": ["residual", "inner=fsq"],
    "residual-gumbel": ["residual", "inner=gumbel"],
    "residual-ibq": ["residual", "inner=ibq", "shared=true"],
    "grouped-vq": ["grouped", "inner=vq", "inner.sampling_temperature=0.5"],
    "grouped-bsq": ["grouped", "inner=bsq"],
    "grouped-gumbel": ["grouped", "inner=gumbel"],
    "hierarchical-residual": ["hierarchical", "inner=residual"],
    "gaussian-groups": ["gaussian", "num_codebooks=4"],
    "kl-target": ["kl", "target_bits=2", "num_groups=2"],
    "multiscale-vq": ["multiscale", "inner=vq"],
    "multiscale-bsq": ["multiscale", "inner=bsq"],
    "multiscale-sampled": ["multiscale", "inner.sampling_temperature=0.5"],
}
VARIANTS = {kind: [kind] for kind in KINDS} | OPTIONS


# Few and small, and with codes that soon restart. At a temperature of 0.01 a softmax makes a
# hundred times as much of a rounding error, at each step.
SMALL = [
    *("channels=8", "block_channels=8", "num_blocks=1"),
    *("size=16", "dim=4", "inner.dim=4", "scales=[1,2,4]", "num_codebooks=2", "num_convolutions=2"),
    *("decay=0.8", "inner.decay=0.8", "restart_below=0.5", "inner.restart_below=0.5"),
    *("entropy_temperature=0.1", "inner.entropy_temperature=0.1"),
]


@once
def composed_codebook(kind: str, *options: str) -> dict[str, Any]:
    """The configuration of a codebook with options such as ``size=16``."""
    words = [f"codebook={kind}", *(f"codebook.{option}" for option in options)]
    codebook: dict[str, Any] = compose("train", read_command_line(words))["codebook"]
    del codebook["grow_from"]  # says how a run begins
    return codebook


@once
def small_arguments(variant: str) -> dict[str, Any]:
    """The configuration of a codebook of 16 ids and 4 channels, as near as its kind comes to it."""
    kind, *options = VARIANTS[variant]
    inner = [option for option in options if option.startswith("inner=")]
    whole = composed_codebook(kind, *inner)
    keys = {
        *whole,
        *(f"inner.{key}" for key in whole.get("inner", ())),
    }
    words = [word for word in SMALL if word.partition("=")[0] in keys]
    return resolve_fractions(composed_codebook(kind, *words, *options), max_steps=20)


def small_codebook(variant: str) -> Codebook:
    """Build it."""
    arguments = dict(small_arguments(variant))
    codebook = build("codebook", arguments.pop("kind"), arguments)
    assert isinstance(codebook, Codebook)
    return codebook


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def codebook(variant: str) -> Codebook:
    return small_codebook(variant)


@pytest.fixture
def another(variant: str) -> Callable[[], Codebook]:
    """Build the codebook of the test once more."""
    return lambda: small_codebook(variant)


@pytest.fixture(scope="session")
def all_arguments() -> dict[str, dict[str, Any]]:
    return {variant: small_arguments(variant) for variant in VARIANTS}
