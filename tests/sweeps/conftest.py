"""Runs and their results, made up."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vqtrain.generation.results import (
    EntropyResult,
    PerturbPoint,
    PerturbResult,
    ProbeReport,
    TokenizerProbe,
    TransformerResult,
    write_probe,
)
from vqtrain.sweeps.job import SweepJob
from vqtrain.sweeps.results import JobResult

MakeJob = Callable[..., SweepJob]
MakeResult = Callable[..., JobResult]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """Make a run of a sweep in ``tmp_path``, of 100 steps."""

    def make(
        name: str = "job",
        *,
        kind: str = "vq",
        max_steps: int = 100,
        has_ids: bool = True,
        **values: object,
    ) -> SweepJob:
        return SweepJob(
            name=name,
            values=values,
            config={"codebook": {"kind": kind}, "trainer": {"devices": 2, "max_steps": max_steps}},
            words=[],
            run_dir=tmp_path / "jobs" / name,
            parameters=1_000,
            flops=2_500_000_000,
            has_ids=has_ids,
        )

    return make


@pytest.fixture
def make_result() -> MakeResult:
    """Make what is known of a run; with a PSNR it has finished, and without one it waits."""

    def make(
        name: str = "job",
        *,
        values: dict[str, object] | None = None,
        rate: float | None = None,
        psnr: float | None = None,
        usage: float | None = None,
        seconds: float | None = None,
        **others: object,
    ) -> JobResult:
        known: dict[str, object] = {
            "name": name,
            "values": values or {},
            "kind": (values or {}).get("codebook", "vq"),
            "state": "waiting" if psnr is None else "finished",
            "code": None if psnr is None else 0,
            "reason": "",
            "run_dir": f"jobs/{name}",
            "image_size": 64,
            "tokens_per_image": None if rate is None else 256,
            "bits_per_pixel": rate,
            "metrics": {} if psnr is None else {"psnr": psnr},
            "codebook": None if usage is None else {"usage": usage, "perplexity": 3.5},
            "parameters": 1_000,
            "gflops": 2.5,
            "train_seconds": seconds,
            **others,
        }
        return JobResult(**known)  # type: ignore[arg-type]  # plain data

    return make


@pytest.fixture
def write_probe_of() -> Callable[..., TokenizerProbe]:
    """Leave a probe in a run's folder, of the stages that have figures, and return it."""

    def write(
        job: SweepJob,
        *,
        entropy: float | None = None,
        transformer: float | None = None,
        perturbed: Sequence[float] = (),
    ) -> TokenizerProbe:
        points = [
            PerturbPoint(share=place / 10, metrics={"psnr": psnr})
            for place, psnr in enumerate(perturbed, start=1)
        ]
        probe = TokenizerProbe(
            name=job.name,
            path=str(job.run_dir),
            kind=job.kind,
            size=16,
            num_codebooks=1,
            token_shape=[16, 16],
            image_size=64,
            tokens_per_image=256,
            bits_per_pixel=0.25,
            entropy=None
            if entropy is None
            else EntropyResult(
                bits_per_token={"context": 16 * entropy},
                bits_per_pixel={"marginal": entropy + 1, "context": entropy},
                seconds=1.0,
            ),
            perturb=PerturbResult(neighbors=4, points=points, seconds=1.0) if points else None,
            transformer=None
            if transformer is None
            else TransformerResult(
                kind="causal",
                is_bound=False,
                depth=2,
                dim=64,
                parameters=10,
                steps=100,
                flops=1e9,
                images_seen=100,
                bits_per_token=16 * transformer,
                bits_per_pixel=transformer,
                curve=[],
                seconds=1.0,
            ),
        )
        job.probe.mkdir(parents=True, exist_ok=True)
        settings = {"transformer": {"budget": 1e13}}
        write_probe(ProbeReport(images={}, settings=settings, tokenizers=[probe]), job.probe)
        return probe

    return write
