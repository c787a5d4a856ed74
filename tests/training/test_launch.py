"""Every way to start several processes makes the same run."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vqtrain.errors import ConfigError
from vqtrain.training.launch import build_trainer
from vqtrain.training.settings import TrainerSettings

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]
GAN = [
    "discriminator=patchgan",
    "discriminator.channels=4",
    "discriminator.num_layers=1",
    "loss.adversarial.ramp_steps=0",
]

# Starts the tasks of a job on this machine, as srun does: with their numbers in the environment.
SRUN = """#!/bin/bash
shift  # --kill-on-bad-exit=1
for task in 0 1; do
    SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NODEID=0 "$@" &
    tasks[$task]=$!
done
trap 'kill -TERM ${tasks[*]}' TERM
for task in 0 1; do
    while kill -0 ${tasks[$task]} 2> /dev/null; do wait ${tasks[$task]}; code=$?; done
    [ $code -gt ${worst:-0} ] && worst=$code
done
exit ${worst:-0}
"""


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell in which ``vqtrain`` is installed, and of a job of SLURM."""
    programs = tmp_path / "programs"
    programs.mkdir()
    files = {
        "vqtrain": f'#!/bin/bash\nexec {sys.executable} -m vqtrain "$@"\n',
        "torchrun": f'#!/bin/bash\nexec {sys.executable} -m torch.distributed.run "$@"\n',
        "srun": SRUN,
        "scontrol": f'#!/bin/bash\necho "$@" > {tmp_path}/requeued\n',
    }
    for name, text in files.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


@pytest.fixture
def slurm(variables: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """What SLURM tells a job of two tasks on one machine."""
    return {
        **variables,
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "vqtrain",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "RUNS": str(tmp_path / "runs"),
    }


@pytest.mark.ddp
def test_all_launchers_make_the_same_run(
    tiny: list[str], tmp_path: Path, variables: dict[str, str], slurm: dict[str, str]
) -> None:
    own, torchrun, by_slurm = tmp_path / "own", tmp_path / "torchrun", tmp_path / "runs/slurm-4711"
    script = str(ROOT / "scripts/train_torchrun.sh")
    node = {**variables, "GPUS": "2", "MASTER": f"127.0.0.1:{free_port()}"}
    ways = [
        ["vqtrain", "train", *tiny, *GAN, "trainer.devices=2", f"run_dir={own}"],
        [script, *tiny, *GAN, f"run_dir={torchrun}"],
        [str(ROOT / "scripts/train_slurm.sh"), *tiny, *GAN],
    ]
    started = [
        subprocess.Popen(
            way,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for way, environment in zip(ways, (variables, node, slurm), strict=True)
    ]
    for process in started:
        printed, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
        # One process speaks.
        assert printed.count("run directory:") == 1
    expected = (own / "metrics.jsonl").read_bytes()
    assert b"adversarial/share" in expected
    for run in (torchrun, by_slurm):
        assert (run / "metrics.jsonl").read_bytes() == expected
    assert not (tmp_path / "requeued").exists()


@pytest.mark.ddp
def test_a_job_of_slurm_that_is_out_of_time_is_requeued_and_goes_on(
    tiny: list[str], tmp_path: Path, slurm: dict[str, str]
) -> None:
    words = [str(ROOT / "scripts/train_slurm.sh"), *tiny, *GAN, "trainer.checkpoint_every=1000000"]
    words += ["trainer.max_steps=1000000", "trainer.validate_every=1000000"]
    words += ["loss.adversarial.start_step=1"]
    job = subprocess.Popen(
        words, env=slurm, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = tmp_path / "runs/slurm-4711/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # SLURM sends its signal to all processes of the step but not to the batch script.
    found = subprocess.run(
        ["pgrep", "-g", str(job.pid), "-f", "kill-on-bad-exit"], capture_output=True, check=False
    )
    os.kill(int(found.stdout.split()[0]), signal.SIGTERM)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 143, err
    assert err == ""
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    (checkpoint,) = metrics.parent.glob("checkpoints/step_*.ckpt")
    step = int(checkpoint.stem.removeprefix("step_"))
    words += [f"trainer.max_steps={step + 2}"]
    done = subprocess.run(
        words, env=slurm, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {step}" in done.stdout


@pytest.mark.parametrize(
    ("variables", "devices", "message"),
    [
        (
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"},
            1,
            "torchrun started 2 processes, but trainer.devices x trainer.num_nodes is 1 x 1",
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1", "SLURM_NTASKS": "4"},
            1,
            "srun started 4 processes, but trainer.devices x trainer.num_nodes is 1 x 1",
        ),
        (
            {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NAME": "train"},
            2,
            "cannot start 2 processes: .*--ntasks-per-node=1",
        ),
    ],
    ids=["torchrun", "srun", "sbatch-without-tasks"],
)
def test_another_number_of_processes_than_asked_for_is_refused(
    variables: dict[str, str],
    devices: int,
    message: str,
    trainer_settings: Callable[..., TrainerSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}.items():
        if "SLURM_NTASKS" in variables:
            monkeypatch.setenv(name, value)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(ConfigError, match=message):
        build_trainer(trainer_settings(devices=devices))
