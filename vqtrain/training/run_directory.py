"""The run directory: where a run keeps its files, and which run a call continues."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch
import yaml
from filelock import FileLock, Timeout

from vqtrain.data.cache import write_whole
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.ops.paths import expand
from vqtrain.training import results
from vqtrain.training.checkpoints import held_step, is_own, numbered, read, step_in_name
from vqtrain.version import __version__

# Packages on which numbers may depend.
PACKAGES = ("torchvision", "lightning", "numpy", "pillow", "scikit-image")


def new_run_dir(name: str) -> Path:
    """Make a run directory of its own for a run, also if others make theirs in the same second.

    It is ``runs/<name>/<date>_<time>``, and in a job of SLURM ``runs/<name>/slurm-<job id>``.

    Raises:
        CheckpointError: If it cannot be made.
    """
    parent = Path("runs") / name
    job = os.environ.get("SLURM_JOB_ID")
    stamp = f"slurm-{job}" if job else time.strftime("%Y-%m-%d_%H-%M-%S")
    run_dir, attempt = parent / stamp, 1
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while not make(run_dir):
            attempt += 1
            run_dir = parent / f"{stamp}_{attempt}"
    except OSError as error:
        raise CheckpointError(f"cannot make {run_dir}: {error.strerror}") from error
    return run_dir


def make(folder: Path) -> bool:
    """Make a folder, and say whether it is new: one process alone is told so."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def latest_of(name: str) -> Path:
    """Name the link to the latest run of a name."""
    return Path("runs") / name / "latest"


def find_checkpoint(resume: str, run_dir: str | None, name: str) -> Path | None:
    """Find the checkpoint that a call continues from.

    Args:
        resume: ``auto``, a run directory, or a checkpoint file.
        run_dir: The run directory that the user gave, or None.
        name: The run's name, under which ``auto`` looks for the latest run.

    Returns:
        The checkpoint; None where ``auto`` finds nothing to continue.

    Raises:
        CheckpointError: If a named run or file does not exist or holds no checkpoint.
    """
    if resume == "auto":
        if run_dir is not None:
            return last_checkpoint(expand(run_dir))
        latest = latest_of(name)
        return last_checkpoint(of_the_run(latest)) if is_unfinished(latest) else None
    path = of_the_run(expand(resume))
    if path.is_file():
        # The run directory is two folders up, which a path from inside it does not name.
        return path.resolve() if path.parent.name in ("", "..") else path
    checkpoint = last_checkpoint(path)
    if checkpoint is None:
        what = "it holds no checkpoint" if path.exists() else "there is no such file or directory"
        if last_checkpoint(path / "latest") is not None:
            what += f", did you mean {resume.rstrip('/')}/latest?"
        raise CheckpointError(f"cannot resume from {resume}: {what}")
    return checkpoint


def of_the_run(path: Path) -> Path:
    """Name the run itself in place of the link ``latest``, which may point elsewhere soon."""
    for link in (path, *path.parents):
        if link.name == "latest" and link.is_symlink():
            return link.parent / link.readlink() / path.relative_to(link)
    return path


def last_checkpoint(run_dir: Path) -> Path | None:
    """Return a run's newest checkpoint that can be read.

    Raises:
        CheckpointError: If it has some, and none can be read.
    """
    files = numbered(run_dir / "checkpoints")
    newest = next(filter(is_own, reversed(files)), None)
    if newest is None and files and held_step(files[-1]) is None:
        read(files[-1], mmap=True)
    return newest


def damaged_after(checkpoint: Path) -> list[Path]:
    """List the newer checkpoints of a run that cannot be read."""
    files = numbered(checkpoint.parent)
    later = files[files.index(checkpoint) + 1 :] if checkpoint in files else []
    return [file for file in later if held_step(file) is None]


def is_unfinished(run_dir: Path) -> bool:
    """Return whether a run has a checkpoint, but none at its last step."""
    last = last_checkpoint(run_dir)
    if last is None:
        return False
    try:
        config = read_config(run_dir)
    except CheckpointError:
        config = read(last, mmap=True)["config"]
    trainer = config.get("trainer")
    max_steps = trainer.get("max_steps") if isinstance(trainer, Mapping) else None
    return isinstance(max_steps, int) and step_in_name(last) < max_steps


def read_config(run_dir: Path) -> dict[str, object]:
    """Read a run's ``config.yaml``.

    Raises:
        CheckpointError: If it is missing or cannot be read.
    """
    try:
        return results.read_config(run_dir)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def write_config(run_dir: Path, config: Mapping[str, object]) -> None:
    """Write a run's ``config.yaml``."""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    write_whole(run_dir / results.CONFIG, text.encode())


def write_environment(run_dir: Path, *, commands: Sequence[str], processes: int) -> None:
    """Write what a run was started with, and on what, as ``environment.json``.

    It can be shown to others: it holds no name of a machine or a user, and no environment variable.

    Args:
        run_dir: The run directory.
        commands: The command lines, without passwords: of its start, then of each resume.
        processes: How many train together.
    """
    has_gpus = torch.cuda.is_available()
    facts = {
        "commands": list(commands),
        "vqtrain": __version__,
        "git commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: metadata.version(name) for name in PACKAGES},
        "CUDA": torch.version.cuda if has_gpus else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "CPU": cpu_name(),
        "cores": os.cpu_count(),
        "GPUs": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "processes": processes,
    }
    text = json.dumps({name: value for name, value in facts.items() if value}, indent=2)
    write_whole(run_dir / results.ENVIRONMENT, f"{text}\n".encode())


def cpu_name() -> str:
    """Return the model of the CPU on Linux, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Return the commit of a checkout of vqtrain, or None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def begin(
    run_dir: Path,
    *,
    config: Mapping[str, object],
    command: str,
    processes: int,
    resuming: bool,
) -> FileLock:
    """Claim a run directory, and write what the run is and how it was started.

    Args:
        run_dir: The run directory.
        config: Of the run, as plain data.
        command: The command line, without passwords.
        processes: How many train together.
        resuming: Whether a run that is there is continued.

    Raises:
        CheckpointError: As of ``claim``.
    """
    lock = claim(run_dir, resuming=resuming)
    earlier = results.commands_of(results.read_environment(run_dir)) if resuming else []
    write_config(run_dir, config)
    write_environment(run_dir, commands=[*earlier, command], processes=processes)
    return lock


def claim(run_dir: Path, *, resuming: bool) -> FileLock:
    """Make a run directory and lock it for as long as the returned lock lives.

    The operating system releases the lock when the process ends, in whatever way.

    Raises:
        CheckpointError: If another process holds it, if it cannot be made, or if it holds
            checkpoints of a run that is not being resumed.
    """
    if not resuming and numbered(run_dir / "checkpoints"):
        raise CheckpointError(
            f"{run_dir} holds the checkpoints of a run: give resume={run_dir} to continue it, or "
            "another run_dir"
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run_dir / ".lock")
        lock.acquire(blocking=False)
    except Timeout as error:
        raise CheckpointError(f"{run_dir} is in use by another process") from error
    except OSError as error:
        raise CheckpointError(f"cannot make run_dir={run_dir}: {error.strerror}") from error
    return lock


def point_latest(run_dir: Path) -> None:
    """Let ``latest``, a relative link, point to a run directory."""
    latest = run_dir.parent / "latest"
    if latest.exists() and not latest.is_symlink():
        return  # something of the user's has that name
    temporary = run_dir.parent / f".latest.{run_dir.name}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run_dir.name)
    temporary.replace(latest)
