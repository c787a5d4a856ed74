"""What works on this machine, what is missing and how to get it."""

import importlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from vqtrain.data.cache import cache_folder
from vqtrain.data.sources.demo import HELD_OUT, TRAINING
from vqtrain.doctor.findings import Finding, in_gib, join
from vqtrain.errors import ConfigError, DataError
from vqtrain.ops.cores import count_cores
from vqtrain.training.trackers.wandb import wandb_mode
from vqtrain.version import __version__

FIRST_UNSUPPORTED_PYTHON = (3, 14)  # hydra-core 1.3 fails on it
MALICIOUS_LIGHTNING = ("2.6.2", "2.6.3")
LEAST_FREE_BYTES = 2**30
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")

TALK_TIMEOUT_S = 30
# What each of two processes does.
TALK = """
import sys, datetime, torch, torch.distributed as dist
rank, url, wait = int(sys.argv[1]), sys.argv[2], datetime.timedelta(seconds=int(sys.argv[3]))
dist.init_process_group("gloo", init_method=url, rank=rank, world_size=2, timeout=wait)
total = torch.ones(1)
dist.all_reduce(total)
assert total == 2, total
dist.destroy_process_group()
"""


def examine_software() -> list[Finding]:
    """Look at the versions of Python and of the libraries that a run stands on."""
    is_supported = sys.version_info < FIRST_UNSUPPORTED_PYTHON
    return [
        Finding(
            name="python",
            found=platform.python_version(),
            remedy=None if is_supported else "use Python 3.11 to 3.13: hydra-core fails on this",
        ),
        Finding(name="vqtrain", found=__version__),
        examine_torch(),
        examine_lightning(),
        examine_wandb(),
    ]


def examine_torch() -> Finding:
    """Look at torch, which is imported here and not above, as a damaged one may be why we run."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        remedy = "reinstall it, as https://pytorch.org/get-started says for this machine"
        return Finding(name="torch", found=f"cannot be imported: {reason}", remedy=remedy)
    return Finding(name="torch", found=f"{torch.__version__}, threads: {torch.get_num_threads()}")


def examine_lightning() -> Finding:
    """Look at the version of Lightning without importing it: bad releases run as they load."""
    install = "pip install 'lightning>=2.5.6,!=2.6.2,!=2.6.3'"
    try:
        version = metadata.version("lightning")
    except metadata.PackageNotFoundError:
        return Finding(name="lightning", found="not installed", remedy=install)
    if version in MALICIOUS_LIGHTNING:
        found = f"{version}, a malicious release"
        return Finding(name="lightning", found=found, remedy=f"remove it at once: {install}")
    return Finding(name="lightning", found=version)


def examine_wandb() -> Finding:
    """Look at wandb and at who is logged in."""
    try:
        version = metadata.version("wandb")
    except metadata.PackageNotFoundError:
        return Finding(name="wandb", found="not installed; logger=wandb needs: pip install wandb")
    try:
        mode = wandb_mode()
    except ConfigError as error:
        return Finding(name="wandb", found=version, remedy=str(error))
    where = f"logger=wandb is {mode} here: not logged in, or set so"
    return Finding(name="wandb", found=f"{version}, {'logged in' if mode == 'online' else where}")


def examine_machine() -> list[Finding]:
    """Look at processors, memory, disks, the demo's photographs and pretrained weights."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    findings = [Finding(name="cpu", found=f"cores: {count_cores()}, memory: {in_gib(memory)}")]
    if "torch" in sys.modules:
        findings += [examine_gpus(), examine_processes()]
    findings.append(
        examine_disk("runs", Path.cwd(), "work in a folder that can be written, or set run_dir")
    )
    to_set = "set VQTRAIN_CACHE to a folder that can be written"
    try:
        findings.append(examine_disk("cache", cache_folder(), to_set))
    except DataError as error:
        findings.append(Finding(name="cache", found=str(error), remedy=to_set))
    findings.append(examine_demo())
    return findings + (examine_weights() if "torch" in sys.modules else [])


def examine_gpus() -> Finding:
    """Look at the GPUs that torch can use, and for some that it cannot."""
    cuda = sys.modules["torch"].cuda
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")  # torch warns where a driver is too old
        is_available = cuda.is_available()
    if is_available:
        gpus = [cuda.get_device_properties(number) for number in range(cuda.device_count())]
        found = "; ".join(f"{gpu.name}, memory: {in_gib(gpu.total_memory)}" for gpu in gpus)
        return Finding(name="gpu", found=found)
    has_gpu = NVIDIA_GPUS.is_dir() and any(NVIDIA_GPUS.iterdir())
    is_hidden = "CUDA_VISIBLE_DEVICES" in os.environ
    if complaints or (has_gpu and not is_hidden):
        reason = str(complaints[0].message).splitlines()[0] if complaints else "torch sees none"
        return Finding(
            name="gpu",
            found=f"an NVIDIA GPU that torch cannot use: {reason}",
            remedy="install torch for the driver's CUDA version, see "
            "https://pytorch.org/get-started",
        )
    return Finding(name="gpu", found="none")


def examine_processes() -> Finding:
    """Let two processes add a number each, as those of a run on several devices do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", TALK, str(rank), url, str(TALK_TIMEOUT_S)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    errors = []
    try:
        for process in processes:
            error = process.communicate(timeout=2 * TALK_TIMEOUT_S)[1]  # importing torch is in it
            errors += (error.splitlines() or ["killed"])[-1:] if process.returncode else []
    except subprocess.TimeoutExpired:
        errors.append("no answer")
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    if not errors:
        return Finding(name="processes", found="two can talk to each other")
    remedy = "let no firewall close loopback; set GLOO_SOCKET_IFNAME to lo, or do not set it"
    found = f"two cannot talk to each other: {errors[0]}"
    return Finding(name="processes", found=found, remedy=remedy)


def examine_weights() -> list[Finding]:
    """Look for files of pretrained weights; none is missing, as a run says which it needs."""
    weights = importlib.import_module("vqtrain.weights")  # it imports torch
    paths = {name: weights.cache_path(name) for name in weights.KNOWN}
    downloads = "not here; a run that needs it downloads it to {}, or give weights.{}=PATH"
    tells = "not here; if you need it, download {} to {}, or give weights.{}=PATH"
    absent = {
        name: downloads.format(paths[name], name)
        if known.sha256
        else tells.format(known.url, paths[name], name)
        for name, known in weights.KNOWN.items()
    }
    are_here = {name: os.access(path, os.R_OK) for name, path in paths.items()}
    return [
        Finding(
            name=name,
            found=str(path) if are_here[name] else absent[name],
            is_there=are_here[name],
        )
        for name, path in paths.items()
    ]


def examine_disk(name: str, folder: Path, to_write_elsewhere: str) -> Finding:
    """Look at the room for a folder, and try to write there."""
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding(
            name=name,
            found=f"{folder} cannot be written: {error.strerror}",
            remedy=to_write_elsewhere,
        )
    return Finding(
        name=name,
        found=f"{folder}, free: {in_gib(free)}",
        remedy=None if free >= LEAST_FREE_BYTES else f"make room, or {to_write_elsewhere}",
    )


def examine_demo() -> Finding:
    """Look for the photographs that ``experiment=demo`` trains on."""
    spec = find_spec("skimage")  # finds the package without the second that importing it takes
    if spec is None or spec.origin is None:
        return Finding(
            name="demo", found="no scikit-image", remedy="pip install 'scikit-image>=0.25'"
        )
    folder, names = Path(spec.origin).parent / "data", (*TRAINING, *HELD_OUT)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return Finding(
            name="demo",
            found=f"{len(missing)} of {len(names)} photographs are not in {folder}: "
            f"{join(missing)}",
            remedy="pip install --force-reinstall --no-deps 'scikit-image>=0.25'",
        )
    return Finding(name="demo", found=f"{len(names)} photographs of scikit-image")
