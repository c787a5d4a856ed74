"""Tensors with a shape and a device but no values, and the memory that they would take."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# What a mode of torch gets of a call.
Operation = Callable[..., object]
Options = Mapping[str, Any] | None

# The batch of a trace. A storage whose number of values is a multiple of it grows with the batch;
# by chance that is so for few others, as it is prime and larger than most kernels.
TRACED_BATCH = 17


def _bincount(ids: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """Return what ``torch.bincount`` does if no number is larger than expected."""
    dtype = torch.int64 if weights is None else weights.dtype
    return torch.empty(minlength, dtype=dtype, device=ids.device)


# Operations whose shapes torch does not know without values.
WITHOUT_SHAPES: Mapping[object, Operation] = {torch.ops.aten.bincount.default: _bincount}


@final
class Unallocated(Tensor):
    """A tensor of a device that computes shapes alone, in the memory of none.

    So autocast and attention choose what they choose on that device, which they do not on torch's
    ``meta``. It does what torch's ``FakeTensorMode`` does for compilers, in a fifth of the time.

    Args:
        inner: A tensor of the device ``meta``.
        device: The device to take the place of.
    """

    on_meta: Tensor

    @staticmethod
    def __new__(cls: type, inner: Tensor, device: torch.device) -> "Unallocated":
        """Make a tensor with the shape, the layout and the type of another."""
        made: Unallocated = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        made.on_meta = inner
        return made

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __repr__(self, **_: object) -> str:  # type: ignore[override]  # torch declares no types
        """Say what it is, as there are no values to print."""
        return f"Unallocated({list(self.shape)}, {self.dtype}, {self.device})"

    # Operations on it are caught below autograd and autocast, by __torch_dispatch__ alone.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares no types for it
        cls, func: Operation, types: object, args: Sequence[Any] = (), kwargs: Options = None
    ) -> object:
        """Run an operation on shapes."""
        del types
        return run_on_shapes(func, args, kwargs or {})


def run_on_shapes(func: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
    """Run an operation of torch on shapes if a tensor in it has no values, or if it makes one."""
    given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Unallocated)]
    device = kwargs.get("device") or (given[0].device if given else None)
    if device is None:
        return func(*args, **kwargs)
    options = {k: v for k, v in kwargs.items() if k not in ("generator", "pin_memory")}
    if "device" in options:
        options["device"] = torch.device("meta")
    args, options = tree_map(_on_meta, (tuple(args), options))
    func = WITHOUT_SHAPES.get(func, func)
    # An operation in place returns what it was given.
    known = {id(each.on_meta): each for each in given}

    def wrap(result: object) -> object:
        if not isinstance(result, Tensor):
            return result
        if id(result) in known:
            return known[id(result)]
        return Unallocated(result, torch.device(device))

    return tree_map(wrap, func(*args, **options))


def _on_meta(value: object) -> object:
    if isinstance(value, Unallocated):
        return value.on_meta
    return value.to("meta") if isinstance(value, Tensor) else value


@final
class CopyWithoutValues(TorchFunctionMode):
    """A context in which ``copy.deepcopy`` copies modules, and of their tensors only the shapes.

    Args:
        device: The device of the copies.
        dtype: The least precision of those of real numbers.

    Attributes:
        nbytes: Memory that the copies would take.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.device, self.dtype, self.nbytes = device, dtype, 0

    def __torch_function__(
        self, func: Operation, types: object, args: Sequence[Any] = (), kwargs: Options = None
    ) -> object:
        """Copy a tensor, which a parameter does by ``clone``."""
        del types
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            memo[id(tensor)] = self._copy(tensor).requires_grad_(tensor.requires_grad)
            return memo[id(tensor)]
        if func is torch._C.TensorBase.clone:
            return self._copy(args[0])
        return func(*args, **(kwargs or {}))

    def _copy(self, tensor: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            is_real = tensor.is_floating_point()
            dtype = torch.promote_types(tensor.dtype, self.dtype) if is_real else tensor.dtype
            copied = torch.empty_like(tensor, dtype=dtype, device="meta")
            self.nbytes += copied.nbytes
            return Unallocated(copied, self.device)


@final
class MemoryTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """A context that records the memory of the tensors without values that are alive in it.

    Memory counts from the first result of an operation until the last tensor that uses it is
    gone, so what a backward pass will need counts until that has used it.

    Attributes:
        moments: Pairs of bytes, constant ones and those of each sample, of all moments at which
            memory was taken.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.moments: set[tuple[int, int]] = set()
        self._constant = self._a_sample = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Operation, types: object, args: Sequence[Any] = (), kwargs: Options = None
    ) -> object:
        """Run an operation on shapes, and count what is new of its results."""
        del types
        results = run_on_shapes(func, args, kwargs or {})
        given = {key for key, _ in map(_storage_of, tree_leaves((args, kwargs)))}
        for result in tree_leaves(results):
            key, storage = _storage_of(result)
            if storage is not None and key not in given | self._alive:
                self._count(key, storage, result.dtype.itemsize)
        return results

    def _count(self, key: int, storage: torch.UntypedStorage, itemsize: int) -> None:
        nbytes = storage.nbytes()
        self._alive.add(key)
        grows = nbytes // itemsize % TRACED_BATCH == 0
        self._add(0 if grows else nbytes, nbytes // TRACED_BATCH if grows else 0)
        self.moments.add((self._constant, self._a_sample))
        weakref.finalize(storage, self._forget, key, grows=grows, nbytes=nbytes).atexit = False

    def _forget(self, key: int, *, grows: bool, nbytes: int) -> None:
        self._alive.discard(key)
        self._add(0 if grows else -nbytes, -(nbytes // TRACED_BATCH) if grows else 0)

    def _add(self, constant: int, a_sample: int) -> None:
        self._constant += constant
        self._a_sample += a_sample


def _storage_of(value: object) -> tuple[int, torch.UntypedStorage | None]:
    """Return the memory of a tensor without values, which its views share, and a number for it."""
    if not isinstance(value, Unallocated):
        return 0, None
    storage = value.on_meta.untyped_storage()
    return storage._cdata, storage
