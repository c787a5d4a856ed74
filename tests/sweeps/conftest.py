"""Runs and their results, made up."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vqtrain.sweeps.job import SweepJob
from vqtrain.sweeps.results import JobResult

MakeJob = Callable[..., SweepJob]
MakeResult = Callable[..., JobResult]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """Make a run of a sweep in ``tmp_path``, of 100 steps."""

    def make(
        name: str = "job", *, kind: str = "vq", max_steps: int = 100, **values: object
    ) -> SweepJob:
        return SweepJob(
            name=name,
            values=values,
            config={"codebook": {"kind": kind}, "trainer": {"devices": 2, "max_steps": max_steps}},
            words=[],
            run_dir=tmp_path / "jobs" / name,
            parameters=1_000,
            flops=2_500_000_000,
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
