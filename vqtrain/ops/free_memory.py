"""Memory that a process can still take."""

from contextlib import suppress
from pathlib import Path

import torch

# Of both versions of Linux's control groups: what a container may take, what it has taken, and
# the name of the part of that which is copies of files.
CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def free_memory(
    device: torch.device, *, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Count the bytes that are free on a device; None where that is not known.

    Args:
        device: A GPU, or the CPU, whose memory is the machine's or that of its container.
        proc: Where Linux describes processes and memory.
        cgroup: Where it describes what a container may take.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    free = []
    with suppress(OSError, KeyError, ValueError):  # not Linux
        free.append(_fields(proc / "meminfo")["MemAvailable:"] * 1024)
    for limit, taken, parts, files in CGROUPS:
        with suppress(OSError, KeyError, ValueError):  # another version, or "max"
            most, now = (int((cgroup / name).read_text()) for name in (limit, taken))
            free.append(most - now + _fields(cgroup / parts)[files])
    return max(0, min(free)) if free else None


def _fields(file: Path) -> dict[str, int]:
    """Read lines of names and numbers."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return {line[0]: int(line[1]) for line in lines}
