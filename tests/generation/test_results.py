"""What probes have found, written and read."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from vqtrain.errors import ConfigError
from vqtrain.generation.results import (
    STAGES,
    CurvePoint,
    EntropyResult,
    PerturbPoint,
    PerturbResult,
    ProbeReport,
    SamplesResult,
    TokenizerProbe,
    TransformerResult,
    read_probe,
    write_probe,
)

BITS = {"marginal": 9.5, "context": 8.25}
PROBE = TokenizerProbe(
    name="fsq",
    path="runs/fsq/latest",
    kind="fsq",
    size=1024,
    num_codebooks=1,
    token_shape=[8, 8],
    image_size=32,
    tokens_per_image=64,
    bits_per_pixel=0.625,
    reconstruction={"psnr": 24.5},
    entropy=EntropyResult(bits_per_token=BITS, bits_per_pixel=BITS, seconds=2.5),
    perturb=PerturbResult(
        neighbors=16, points=[PerturbPoint(share=0.1, metrics={"psnr": 22.0})], seconds=1.0
    ),
    transformer=TransformerResult(
        kind="causal",
        is_bound=False,
        depth=2,
        dim=64,
        parameters=10**6,
        steps=100,
        flops=1e13,
        images_seen=6400,
        bits_per_token=7.5,
        bits_per_pixel=0.5,
        curve=[CurvePoint(step=50, bits_per_pixel=0.75)],
        seconds=60.0,
    ),
    samples=SamplesResult(count=64, metrics={}, sampling={"top_k": None}, seconds=1.0),
)
REPORT = ProbeReport(images={"count": 100}, settings={"seed": 0}, tokenizers=[PROBE])


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    write_probe(REPORT, tmp_path)
    assert read_probe(tmp_path) == REPORT
    assert all(getattr(PROBE, stage) is not None for stage in STAGES)


def test_what_is_no_number_is_null_and_read_as_none(tmp_path: Path) -> None:
    lost = replace(PROBE, reconstruction={"psnr": math.inf, "ssim": math.nan})
    write_probe(replace(REPORT, tokenizers=[lost]), tmp_path)
    assert '"psnr": null' in (tmp_path / "probe.json").read_text()
    assert all(map(math.isnan, read_probe(tmp_path).tokenizers[0].reconstruction.values()))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 1', '"version": 2', "version: Input should be 1"),
        ("vqtrain-probe", "vqtrain-sweep", "format: Input should be 'vqtrain-probe'"),
        ('"size": 1024', '"size": 0', "tokenizers.0.size: Input should be greater"),
        ('"step": 50', '"step": "x"', "tokenizers.0.transformer.curve.0.step: Input should be"),
        ("}", "", "Invalid JSON"),
    ],
)
def test_a_file_that_is_not_one_is_refused_in_one_sentence(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    write_probe(REPORT, tmp_path)
    file = tmp_path / "probe.json"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(f"the results in {file}: {message}")) as error:
        read_probe(tmp_path)
    assert "\n" not in str(error.value)
