"""What is free, from files like those of Linux."""

from pathlib import Path

import torch

from vqtrain.ops.free_memory import free_memory


def test_a_container_may_have_less_than_its_machine(tmp_path: Path) -> None:
    proc, cgroup, cpu = tmp_path / "proc", tmp_path / "cgroup", torch.device("cpu")
    assert free_memory(cpu, proc=proc, cgroup=cgroup) is None  # not Linux
    proc.mkdir()
    (proc / "meminfo").write_text("MemTotal:  24000 kB\nMemAvailable:  5000 kB\nHugePages: 0\n")
    (cgroup / "memory").mkdir(parents=True)
    assert free_memory(cpu, proc=proc, cgroup=cgroup) == 5_120_000
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("3000\n")
    (cgroup / "memory.stat").write_text("anon 2000\ninactive_file 1000\n")
    assert free_memory(cpu, proc=proc, cgroup=cgroup) == 5_120_000
    (cgroup / "memory.max").write_text("10000\n")
    assert free_memory(cpu, proc=proc, cgroup=cgroup) == 8000  # copies of files give way
    (cgroup / "memory/memory.limit_in_bytes").write_text("4000\n")
    (cgroup / "memory/memory.usage_in_bytes").write_text("3000\n")
    (cgroup / "memory/memory.stat").write_text("inactive_file 5\ntotal_inactive_file 200\n")
    assert free_memory(cpu, proc=proc, cgroup=cgroup) == 1200
    assert free_memory(torch.device("meta")) is None
