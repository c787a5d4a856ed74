"""Communication between ranks. The only file that calls torch.distributed.

Every function works without a process group, as a world of one rank. Those that reduce are
collective: all ranks must call them, in the same order.
"""

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from threading import Timer
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

Item = TypeVar("Item")

# Seconds in which the processes of a run usually find each other.
LONG_S = 60.0


def is_running() -> bool:
    """Say whether there is a process group."""
    return dist.is_available() and dist.is_initialized()


@contextmanager
def process_group(device: torch.device, timeout: timedelta) -> Iterator[None]:
    """Return a context in which this process is in the process group of its environment.

    Args:
        device: Of this process.
        timeout: How long a rank waits for another.

    Raises:
        RuntimeError: If the others cannot be reached.
        ValueError: If the environment defines no group.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


def leave() -> None:
    """Leave the process group, if there is one, so that this process is alone from here on."""
    if is_running():
        dist.destroy_process_group()


@contextmanager
def waiting_is_told(*, is_told: bool) -> Iterator[None]:
    """Return a context for the start of a process group; a line says so if that takes long.

    Args:
        is_told: Whether this process may print it; of several on a machine one is enough.
    """

    def tell() -> None:
        if is_running():
            return
        address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        is_alone = "SLURM_NTASKS" in os.environ and "SLURM_STEP_NUM_TASKS" not in os.environ
        hint = ": under sbatch alone there is one, start it with srun" if is_alone else ""
        sys.stderr.write(
            f"vqtrain: still waiting for the other processes of this run at {address}{hint}\n"
        )
        sys.stderr.flush()

    timer = Timer(LONG_S, tell)
    timer.daemon = True
    if is_told:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def rank() -> int:
    """Return the number of this process among all, from 0."""
    return dist.get_rank() if is_running() else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if is_running() else 1


def places(batch: int, samples: int) -> range:
    """Return the places of this rank's samples among all samples of a step.

    They are those of one process that has the batches of all ranks joined, so what is drawn by them
    does not depend on how a step is split.

    Args:
        batch: The number of the batch in its step, from 0 on.
        samples: Samples of the batch on each rank.
    """
    first = (batch * world_size() + rank()) * samples
    return range(first, first + samples)


def all_reduce_sum(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Sum a tensor over all ranks, into a new tensor on each; no gradient flows through it."""
    if not is_running():
        return tensor
    total = tensor.detach().clone().contiguous()
    dist.all_reduce(total)
    return total


def all_reduce_sum_(tensor: Shaped[Tensor, "*shape"]) -> None:
    """Replace a tensor by its sum over all ranks."""
    if is_running():
        dist.all_reduce(tensor)


def mean_over_ranks(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Average a tensor over all ranks, with the gradient that a mean of all ranks' losses needs.

    A loss of this mean is the same on every rank, and gradients are averaged over ranks later. So
    each rank passes the whole gradient to its own tensor.
    """
    if not is_running():
        return tensor
    mean = all_reduce_sum(tensor) / world_size()
    return mean + (tensor - tensor.detach())


def all_reduce_sum_with_gradient(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Sum a tensor over all ranks, with the gradient of the sum of all ranks' losses.

    Every rank's loss depends on the sum, so the backward pass adds up their gradients: all ranks
    must run it.
    """
    return _Sum.apply(tensor) if is_running() else tensor


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(tensor: Tensor) -> Tensor:
        return all_reduce_sum(tensor)

    @staticmethod
    def setup_context(context: object, inputs: object, output: object) -> None:
        pass

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:
        del context
        return all_reduce_sum(gradients[0])


def from_first_rank(tensor: Shaped[Tensor, "*shape"]) -> None:
    """Overwrite a tensor by that of the first rank."""
    if is_running():
        dist.broadcast(tensor, src=0)


def all_true(flag: Shaped[Tensor, ""]) -> bool:
    """Say whether a flag is true on every rank, so that all ranks decide the same."""
    if is_running():
        flag = flag.to(torch.uint8)
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)


def all_max(values: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Return the largest of each value over all ranks."""
    if not is_running():
        return values
    largest = values.clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def all_equal(value: int, device: torch.device) -> bool:
    """Say whether a number, of at most 62 bits, is the same on every rank."""
    both = all_max(torch.tensor([value, -value], device=device))
    return int(both.sum()) == 0


def all_gather_lists(items: list[Item]) -> list[Item]:
    """Join the lists of all ranks, in the order of the ranks; for rare, small data."""
    if not is_running():
        return items
    lists: list[list[Item]] = [[] for _ in range(world_size())]
    dist.all_gather_object(lists, items)
    return [item for items in lists for item in items]


def is_lost_peer(error: RuntimeError) -> bool:
    """Say whether an error means that another process has ended or does not respond."""
    if isinstance(error, dist.DistError):
        return True
    return is_running() and any(word in str(error).lower() for word in ("gloo", "nccl"))


def all_gather(tensor: Float[Tensor, " n *shape"]) -> Float[Tensor, " m *shape"]:
    """Join equally long tensors of all ranks along the first axis, in the order of the ranks."""
    if not is_running():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts)


def all_gather_with_gradient(tensor: Float[Tensor, " n *shape"]) -> Float[Tensor, " m *shape"]:
    """Join tensors as ``all_gather`` does, with the gradient that a loss of all of them needs.

    Such a loss is the same on every rank, and gradients are averaged over ranks later. So each rank
    passes the gradient of its own part, times the number of ranks, to its own tensor.
    """
    if not is_running():
        return tensor
    parts = list(all_gather(tensor).chunk(world_size()))
    parts[rank()] = parts[rank()] + world_size() * (tensor - tensor.detach())
    return torch.cat(parts)


def shard(
    network: nn.Module, units: Iterable[nn.Module], *, whole: Collection[nn.Parameter]
) -> None:
    """Split the parameters of a network over all ranks along their first axis, by torch's FSDP2.

    A unit is gathered where it runs forward or backward, and its gradients are averaged over ranks
    and split in the backward pass. So ranks run the network together, and always as a whole.

    Args:
        network: On any device; its parameters become others.
        units: Its parts that are gathered one at a time; what is in none of them is one more.
        whole: Parameters that stay whole on each rank, and whose gradients are not averaged.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    mesh = init_device_mesh(device, (world_size(),))
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()  # others cannot be split
    for unit in dict.fromkeys([*units, network]):
        # A unit that stayed gathered after validation would miss a change of the weights.
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, ignored_params=set(whole))


def is_split(tensor: Tensor) -> bool:
    """Say whether this rank has only its part of a tensor, because of ``shard``."""
    module = sys.modules.get("torch.distributed.tensor")  # slow to import; without it none is
    return module is not None and isinstance(tensor, module.DTensor)


def part_of(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor, in the same memory; all of one that is not split."""
    return tensor.detach().to_local() if is_split(tensor) else tensor  # type: ignore[attr-defined]  # is_split


def joined(part: Tensor, like: Tensor) -> Tensor:
    """Return the tensor of which each rank has a part, as it has one of another tensor."""
    if not is_split(like):
        return part
    from torch.distributed.tensor import DTensor

    assert isinstance(like, DTensor)
    return DTensor.from_local(
        part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )


def whole(tensor: Tensor) -> Tensor:
    """Gather a tensor that is split, without a gradient, from any device; collective."""
    if not is_split(tensor):
        return tensor
    device = tensor.device_mesh.device_type  # type: ignore[attr-defined]  # is_split
    return joined(part_of(tensor).to(device), like=tensor).full_tensor()  # type: ignore[attr-defined]  # is_split


def split(tensor: Tensor, like: Tensor) -> Tensor:
    """Split a tensor that all ranks have as another one of its shape is, if that is split."""
    if not is_split(like):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    mesh, placements = like.device_mesh, like.placements
    return distribute_tensor(tensor.to(like.device), mesh, placements, src_data_rank=None)


def all_whole(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gather the tensors of a state dict; collective where one is split."""
    return {name: whole(tensor) for name, tensor in weights.items()}


def all_split(weights: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the tensors of a state dict as those of another one are, by name."""
    return {name: split(tensor, like[name]) for name, tensor in weights.items()}


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of the parameters that are not split, all in one reduction."""
    found = [p.grad for p in parameters if p.grad is not None and not is_split(p)]
    if not found:
        return
    mean = all_reduce_sum(torch.cat([each.flatten() for each in found])) / world_size()
    for each, own in zip(found, torch.split(mean, [each.numel() for each in found]), strict=True):
        each.copy_(own.view_as(each))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Float[Tensor, ""]:
    """Return the norm of the gradient over all parameters, split or not; collective where split."""
    found = [p.grad for p in parameters if p.grad is not None]
    parts = [part_of(each) for each in found if is_split(each)]
    norm = nn.utils.get_total_norm([each for each in found if not is_split(each)])
    if not parts:
        return norm
    return (norm.square() + all_reduce_sum(nn.utils.get_total_norm(parts).square())).sqrt()
