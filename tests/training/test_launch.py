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
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
Popen = subprocess.Popen[str]
Start = Callable[..., Popen]
StartStep = Callable[[Popen], "Step"]
GAN = [
    "discriminator=patchgan",
    "discriminator.channels=4",
    "discriminator.num_layers=1",
    "loss.adversarial.ramp_steps=0",
]

# Says what its tasks are to run, and waits until another process has run them.
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > step.part && mv step.part step
while [ ! -e ended ]; do sleep 0.05; done
code=$(cat ended)
rm ended
exit "$code"
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


class Step:
    """The two tasks of a batch script, run on this machine as srun does.

    Their numbers are in their environment.
    """

    def __init__(self, script: Popen, folder: Path, slurm: dict[str, str], start: Start) -> None:
        self.folder = folder
        deadline = time.monotonic() + 120
        while not (folder / "step").exists():
            assert script.poll() is None, script.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        option, program, *words = (folder / "step").read_text().splitlines()
        (folder / "step").unlink()
        assert (option, program) == ("--kill-on-bad-exit=1", "vqtrain")
        self.tasks = [
            start(
                *("-m", "vqtrain", *words),
                variables={
                    **slurm,
                    "SLURM_STEP_NUM_TASKS": "2",
                    "SLURM_PROCID": str(task),
                    "SLURM_LOCALID": str(task),
                    "SLURM_NODEID": "0",
                },
                cwd=folder,
                **PIPES,
            )
            for task in range(2)
        ]

    def end(self) -> tuple[str, str]:
        """Wait for both, tell srun the worse of their codes, and return what they have printed."""
        printed = [task.communicate(timeout=180) for task in self.tasks]
        (self.folder / "ended.part").write_text(str(max(task.returncode for task in self.tasks)))
        (self.folder / "ended.part").rename(self.folder / "ended")
        out, errors = map("".join, zip(*printed, strict=True))
        return out, errors


@pytest.fixture
def start_step(tmp_path: Path, slurm: dict[str, str], start_python: Start) -> StartStep:
    """Start the tasks for which a batch script asks srun."""
    return lambda script: Step(script, tmp_path, slurm, start_python)


@pytest.mark.ddp
def test_all_launchers_make_the_same_run(
    tiny: list[str],
    tmp_path: Path,
    variables: dict[str, str],
    slurm: dict[str, str],
    start_vqtrain: Start,
    start_step: StartStep,
) -> None:
    own, torchrun, by_slurm = tmp_path / "own", tmp_path / "torchrun", tmp_path / "runs/slurm-4711"
    script = str(ROOT / "scripts/train_torchrun.sh")
    node = {**variables, "GPUS": "2", "MASTER": f"127.0.0.1:{free_port()}"}
    elastic = subprocess.Popen(
        [script, *tiny, *GAN, f"run_dir={torchrun}"], cwd=tmp_path, env=node, text=True, **PIPES
    )
    words = [str(ROOT / "scripts/train_slurm.sh"), *tiny, *GAN]
    batch = subprocess.Popen(words, cwd=tmp_path, env=slurm, text=True, **PIPES)
    step = start_step(batch)
    alone = start_vqtrain("train", *tiny, *GAN, "trainer.devices=2", f"run_dir={own}")
    outputs = {"srun": step.end()}
    for process in (elastic, batch, alone):
        outputs[str(process.args)] = process.communicate(timeout=180)
        assert process.returncode == 0, outputs
    # One process speaks.
    counts = [printed.count("run directory:") for printed, _ in outputs.values()]
    assert sorted(counts) == [0, 1, 1, 1]  # the batch script is silent
    expected = (own / "metrics.jsonl").read_bytes()
    assert b"adversarial/share" in expected
    for run in (torchrun, by_slurm):
        assert (run / "metrics.jsonl").read_bytes() == expected
    assert not (tmp_path / "requeued").exists()


@pytest.mark.ddp
def test_a_job_of_slurm_that_is_out_of_time_is_requeued_and_goes_on(
    tiny: list[str], tmp_path: Path, slurm: dict[str, str], start_step: StartStep
) -> None:
    words = [str(ROOT / "scripts/train_slurm.sh"), *tiny, *GAN, "trainer.checkpoint_every=1000000"]
    words += ["trainer.max_steps=1000000", "trainer.validate_every=1000000"]
    words += ["loss.adversarial.start_step=1"]
    job = subprocess.Popen(words, env=slurm, cwd=tmp_path, text=True, **PIPES)
    step = start_step(job)
    metrics = tmp_path / "runs/slurm-4711/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        assert all(task.poll() is None for task in step.tasks), step.end()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # SLURM sends its signal to all processes of the step but not to the batch script.
    for task in step.tasks:
        task.send_signal(signal.SIGTERM)
    assert step.end()[1] == ""
    assert job.communicate(timeout=60) == ("", "")
    assert job.returncode == 143
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    (checkpoint,) = metrics.parent.glob("checkpoints/step_*.ckpt")
    reached = int(checkpoint.stem.removeprefix("step_"))
    words += [f"trainer.max_steps={reached + 2}"]
    job = subprocess.Popen(words, env=slurm, cwd=tmp_path, text=True, **PIPES)
    out, err = start_step(job).end()
    assert job.communicate(timeout=60) == ("", "")
    assert job.returncode == 0, err
    assert f"resuming at step {reached}" in out


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
