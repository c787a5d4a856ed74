"""The curves of ``probe.png``."""

from pathlib import Path

import pytest
from PIL import Image

from vqtrain.generation.plot import perturbed_of, rates_of, save_plot, training_of
from vqtrain.generation.results import (
    CurvePoint,
    EntropyResult,
    PerturbPoint,
    PerturbResult,
    ProbeReport,
    TokenizerProbe,
    TransformerResult,
)

ENTROPY = EntropyResult(
    bits_per_token={}, bits_per_pixel={"marginal": 0.4, "context": 0.3}, seconds=0.0
)
PERTURB = PerturbResult(
    neighbors=1, points=[PerturbPoint(share=0.5, metrics={"psnr": 10.0})], seconds=0.0
)
TRANSFORMER = TransformerResult(
    kind="causal",
    is_bound=False,
    depth=1,
    dim=32,
    parameters=1,
    steps=20,
    flops=1.0,
    images_seen=1,
    bits_per_token=1.0,
    bits_per_pixel=0.2,
    curve=[CurvePoint(step=10, bits_per_pixel=0.3), CurvePoint(step=20, bits_per_pixel=0.2)],
    seconds=0.0,
)


def make_probe(**found: object) -> TokenizerProbe:
    return TokenizerProbe(
        name="a",
        path="a",
        kind="fsq",
        size=16,
        num_codebooks=1,
        token_shape=[4, 4],
        image_size=16,
        tokens_per_image=16,
        bits_per_pixel=0.5,
        **found,  # type: ignore[arg-type]  # plain data
    )


def test_curves_hold_what_was_measured() -> None:
    probe = make_probe(
        reconstruction={"psnr": 20.0}, entropy=ENTROPY, perturb=PERTURB, transformer=TRANSFORMER
    )
    assert rates_of(probe) == [(0.5, 20), (0.2, 20)]
    assert training_of(probe) == [(10, 0.3), (20, 0.2)]
    assert perturbed_of(probe) == [(0, 20), (0.5, 10)]
    assert rates_of(make_probe(reconstruction={"psnr": 20.0}, entropy=ENTROPY))[1] == (0.3, 20)
    bare = make_probe(perturb=PERTURB)
    assert (rates_of(bare), training_of(bare), perturbed_of(bare)) == ([], [], [])


def test_a_panel_without_figures_is_left_out(tmp_path: Path) -> None:
    widths = []
    for found in ({"transformer": TRANSFORMER}, {}):
        probe = make_probe(reconstruction={"psnr": 20.0}, perturb=PERTURB, **found)
        save_plot(ProbeReport(images={}, settings={}, tokenizers=[probe, probe]), tmp_path)
        with Image.open(tmp_path / "probe.png") as image:
            widths.append(image.width)
    assert widths[0] == pytest.approx(1.5 * widths[1], rel=0.01)
    save_plot(ProbeReport(images={}, settings={}, tokenizers=[make_probe()]), tmp_path)
    assert not (tmp_path / "probe.png").exists()
