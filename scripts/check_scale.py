"""Compares the traffic that scripts/plan_scale.py foresees with that of two processes that train.

Each process counts the bytes that it gives to torch.distributed in a step: gradients, which DDP
reduces in buckets, and all else, which is the codebook's and what both must agree on. The time of
a ring is compared with that of the gradients' all-reduce alone, at the bandwidth of a larger one.
Run: OMP_NUM_THREADS=1 python scripts/check_scale.py experiment=demo
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from plan_scale import Traffic, seconds
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.planned import build_planned
from vqtrain.app.parts.settings import Settings
from vqtrain.training.launch import quiet_libraries
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.speed import time_batches

DEVICES, STEPS, ROUNDS = 2, 3, 9
LARGE = 2**26  # numbers of an all-reduce by which the bandwidth is measured


class Counter(Callback):
    """Counts the bytes that this process reduces over all in the last of some steps.

    Attributes:
        gradients: Bytes of gradients.
        others: All other bytes.
    """

    uncounted: Any

    def __init__(self) -> None:
        self.gradients = self.others = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch what is reduced."""
        del pl_module
        model, group = trainer.strategy.model, dist.group.WORLD
        assert isinstance(model, DistributedDataParallel)
        assert group is not None, "the trainer has one"
        reduce: Callable[..., Any] = dist.all_reduce

        def hook(state: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
            del state
            self.gradients += bucket.buffer().nbytes
            self.others -= bucket.buffer().nbytes  # the hook below this one counts it, too
            return allreduce_hook(group, bucket)

        def counting(tensor: Tensor, *arguments: object, **options: object) -> object:
            self.others += tensor.nbytes
            result: object = reduce(tensor, *arguments, **options)
            return result

        model.register_comm_hook(None, hook)
        self.uncounted, dist.all_reduce = reduce, counting  # type: ignore[assignment]  # it has overloads

    def on_train_batch_start(self, *_: object) -> None:
        """Begin to count anew."""
        self.gradients = self.others = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Leave the numbers of the last step; the first one may do more."""
        del trainer
        assert isinstance(pl_module, TokenizerTraining)
        if pl_module.step >= STEPS:
            dist.all_reduce = self.uncounted


def time_of(numbers: int) -> float:
    """Time the all-reduce of that many float32 numbers, in seconds."""
    tensor, times = torch.zeros(numbers), []
    for _ in range(ROUNDS):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(tensor)
        times.append(time.perf_counter() - began)
    return median(times)


def train(rank: int, environment: Mapping[str, str], config: dict[str, Any]) -> None:
    """Train in one process of two, and compare."""
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    quiet_libraries()
    settings = Settings.of(config)
    module = build_planned(config, settings).module
    traffic = Traffic.of(module)
    data, counter = settings.data, Counter()
    shape = (data.batch_size, data.channels, *data.sample_size)
    samples = torch.randint(0, 256, shape, dtype=torch.uint8)
    time_batches(module, samples, lambda seconds: len(seconds) >= STEPS, [counter])
    gradients = traffic.sharded + traffic.whole
    large_s, own_s = time_of(LARGE), time_of(gradients // 4)
    dist.destroy_process_group()
    gbits = 8 * 4 * LARGE / large_s / 1e9  # two processes send each byte once
    if rank == 0:
        print("| what | foreseen | counted or measured | ratio |\n|---|---|---|---|")
        for what, unit, foreseen, found in (
            ("gradients", "kB", gradients / 1e3, counter.gradients / 1e3),
            ("codebook and the rest", "kB", traffic.codebook / 1e3, counter.others / 1e3),
            ("time of the gradients", "ms", 1e3 * seconds(gradients, gbits), 1e3 * own_s),
        ):
            ratio = foreseen / found
            print(f"| {what} | {foreseen:,.1f} {unit} | {found:,.1f} {unit} | {ratio:.3f} |")


def main() -> None:
    """Start both processes."""
    words = [*sys.argv[1:], "data.train=unused", f"trainer.devices={DEVICES}"]
    config = compose("train", read_command_line([*words, "trainer.accelerator=cpu"]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(DEVICES),
        "LOCAL_WORLD_SIZE": str(DEVICES),
        "TORCHELASTIC_RUN_ID": "check",
        "GROUP_RANK": "0",
    }
    with TemporaryDirectory() as folder:
        os.chdir(Path(folder))
        spawn(train, (environment, config), nprocs=DEVICES)  # type: ignore[no-untyped-call]  # torch's own


if __name__ == "__main__":
    main()
