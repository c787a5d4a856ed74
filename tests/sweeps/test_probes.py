"""The figures of a run's probe, from a file as ``vqtrain probe`` writes it."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vqtrain.generation.results import SamplesResult, TokenizerProbe, read_probe, write_probe
from vqtrain.sweeps.job import SweepJob
from vqtrain.sweeps.probes import figures_of, is_probed
from vqtrain.sweeps.probes import read_probe as read

MakeProbe = Callable[..., TokenizerProbe]


def test_figures_are_the_context_model_the_middle_share_and_the_transformer(
    make_job: Callable[..., SweepJob], write_probe_of: MakeProbe
) -> None:
    probe = write_probe_of(make_job(), entropy=0.4, transformer=0.3, perturbed=[24.0, 21.0, 17.0])
    assert figures_of(probe) == {
        "entropy_bits_per_pixel": 0.4,
        "probe_bits_per_pixel": 0.3,
        "perturbed_psnr": 21.0,
    }
    drawn = SamplesResult(count=64, metrics={"fid": 80.0}, sampling={}, seconds=1.0)
    lost = replace(probe, entropy=None, samples=drawn, perturb=None)
    assert figures_of(lost) == {"probe_bits_per_pixel": 0.3, "samples_fid": 80.0}
    # What is no number is no figure.
    assert figures_of(write_probe_of(make_job(), transformer=math.nan)) == {}


def test_a_run_is_probed_once_all_stages_are_there(
    make_job: Callable[..., SweepJob], write_probe_of: MakeProbe
) -> None:
    job, continuous = make_job("a"), make_job("kl", has_ids=False)
    assert is_probed(job, [])
    assert is_probed(continuous, ["entropy"])
    assert not is_probed(job, ["entropy"])
    write_probe_of(job, entropy=0.4)
    assert is_probed(job, ["entropy"])
    assert not is_probed(job, ["entropy", "transformer"])


@pytest.mark.parametrize("content", [b"", b'{"tokenizers": [{"met', b"{}", b'"\xff"'])
def test_a_damaged_probe_is_none(
    make_job: Callable[..., SweepJob], write_probe_of: MakeProbe, content: bytes
) -> None:
    job = make_job()
    assert read(job.probe) is None
    write_probe_of(job, entropy=0.4)
    report = read_probe(job.probe)
    write_probe(replace(report, tokenizers=[*report.tokenizers, *report.tokenizers]), job.probe)
    assert read(job.probe) is None  # of several tokenizers
    Path(job.probe, "probe.json").write_bytes(content)
    assert read(job.probe) is None
