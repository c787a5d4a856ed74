"""Weights in files of others: what torch saved, also before version 1.6, and safetensors.

``torch.load(weights_only=True)`` is not enough for files of strangers
(``docs/decisions/0023-a-pickle-reader-of-our-own.md``): it refuses a whole checkpoint for the name
of one callback, reads an optimizer's tensors with the others, and trusts sizes that a file claims.
So files are read here, by a pickle reader that knows a few names. It imports nothing, and calls
only functions of this file.
"""

import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vqtrain.errors import CheckpointError

# What a file of torch begins with that is no zip archive, as all were before torch 1.6.
OLD_START = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")

# Dtype of each storage by its name in a pickle.
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# Names that describe a training, or are parts of such descriptions: they become ``Inert``.
INERT = re.compile(
    r"(pytorch_lightning|lightning|lightning_fabric|lightning_utilities|omegaconf|jsonargparse"
    r"|argparse|numpy|pathlib|typing|datetime)\..+"
    r"|collections\.(defaultdict|Counter|deque)"
    r"|builtins\.(set|frozenset|int|long|float|bool|str|unicode|bytes|bytearray|complex|list|dict"
    r"|tuple|object|slice|range|xrange)"
    r"|copyreg\._reconstructor|_codecs\.encode"
    r"|torch\.(device|Size|bool|u?int\d+|b?float\d+)"
)


# Modules by their names in Python 2, which pickles of protocol 2 hold.
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Inert:
    """Stands where a file has an object that is not needed, and does nothing.

    A pickle cannot set attributes of it or of the class either: ``__setstate__`` takes them.
    """

    def __init__(self, *arguments: object, **named: object) -> None:
        del arguments, named

    def ignore(self, *arguments: object) -> None:
        """Take what the object would be filled with."""

    __setstate__ = __setitem__ = append = extend = add = ignore


class Module:
    """Stands where a file has a module of torch: keeps its tensors and the modules inside it.

    Attributes:
        state: What the file fills it with.
    """

    state: Mapping[str, object]

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    def items(self, kind: str) -> dict[str, object]:
        """Return what it holds of a kind, such as ``_parameters``, by name."""
        found = getattr(self, "state", {}).get(kind)
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A run of values in a file, by its key there."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor in a file: a view of a storage, whose bounds were checked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


# Returns the values of a storage.
Load = Callable[[Storage], Tensor]


def read_weights(
    path: Path, sections: Sequence[str] = ("state_dict",), modules: re.Pattern[str] | None = None
) -> dict[str, Shaped[Tensor, "..."]]:
    """Read the tensors of a file by their names; nothing in it is run or imported.

    Args:
        path: What torch saved, of any version, or safetensors.
        sections: Keys of a checkpoint that may hold the weights, of which the first that exists is
            taken; without any, the file itself must hold them.
        modules: Names of classes of modules; a file that is one gives what its state dict holds.

    Raises:
        CheckpointError: If it cannot be read, is damaged, or names what may do harm.
    """
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return from_zip(file, sections, modules)
            file.seek(0)
            start = file.read(len(OLD_START))
            if start == OLD_START:
                return from_old(file, sections, modules)
        if path.suffix == ".safetensors" or start[8:9] == b"{":
            return read_safetensors(path)
        if start.startswith(b"PK"):
            raise CheckpointError("it is damaged (its end is missing)")
        raise CheckpointError("it is no checkpoint, neither of torch nor safetensors")
    except CheckpointError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle raises anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"cannot read {path}: it is damaged ({reason})") from error


def read_safetensors(
    path: Path, wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Shaped[Tensor, "..."]]:
    """Read those tensors of a safetensors file whose names are wanted.

    Raises:
        CheckpointError: If it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise CheckpointError(f"it is damaged ({error})") from error


def from_zip(
    file: BufferedIOBase, sections: Sequence[str], modules: re.Pattern[str] | None
) -> dict[str, Tensor]:
    """Read the format of torch 1.6 and later."""
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(names) != 1:
            raise CheckpointError("it is a zip archive that torch did not write: unpack it first")
        root = names[0].partition("/")[0]

        def member(name: str) -> bytes:
            info = archive.getinfo(f"{root}/{name}")
            if info.file_size > size:  # torch compresses nothing
                raise CheckpointError(f"its {name} has {info.file_size} bytes, the file {size}")
            return archive.read(info)

        def load(storage: Storage) -> Tensor:
            return to_values(member(f"data/{storage.key}"), storage)

        if f"{root}/byteorder" in archive.namelist() and member("byteorder") != b"little":
            raise CheckpointError("its numbers are big-endian")
        content = Unpickler(BytesIO(member("data.pkl")), modules).load()
        return named(content, sections, load)


def from_old(
    file: BufferedIOBase, sections: Sequence[str], modules: re.Pattern[str] | None
) -> dict[str, Tensor]:
    """Read the format before torch 1.6: pickles, and all storages behind them."""
    Unpickler(file).load()  # the protocol
    system = Unpickler(file).load()
    if not system["little_endian"]:
        raise CheckpointError("its numbers are big-endian")
    unpickler = Unpickler(file, modules)
    content = unpickler.load()
    places: dict[str, int] = {}
    for key in Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        if count != unpickler.storages[key].count:
            raise CheckpointError(f"its storage {key} holds {count} values, other than claimed")
        places[key] = file.tell()
        file.seek(count * unpickler.storages[key].dtype.itemsize, 1)

    def load(storage: Storage) -> Tensor:
        file.seek(places[storage.key])
        return to_values(read_exactly(file, storage), storage)

    return named(content, sections, load)


def read_exactly(file: BufferedIOBase, storage: Storage) -> bytes:
    """Read a storage where a file stands, if the file is long enough for it."""
    here, end = file.tell(), file.seek(0, 2)
    file.seek(here)
    return file.read(min(storage.count * storage.dtype.itemsize, end - here))


def to_values(data: bytes, storage: Storage) -> Shaped[Tensor, " n"]:
    """Turn the bytes of a storage into a tensor."""
    if len(data) != storage.count * storage.dtype.itemsize:
        raise CheckpointError(
            f"its storage {storage.key} has {len(data)} bytes, {storage.count} values of "
            f"{storage.dtype.itemsize} are claimed"
        )
    if not data:  # which frombuffer refuses
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(bytearray(data), dtype=storage.dtype)


def named(content: object, sections: Sequence[str], load: Load) -> dict[str, Tensor]:
    """Load the tensors of the first section that is there, and drop all else."""
    if isinstance(content, Module):
        content = flat(content, "", set())
    if not isinstance(content, dict):
        raise CheckpointError("it holds no weights by name")
    chosen = next((content[s] for s in sections if isinstance(content.get(s), dict)), content)
    stored = {name: item for name, item in chosen.items() if isinstance(item, Stored)}
    if not stored or not all(isinstance(name, str) for name in stored):
        raise CheckpointError("it holds no weights by name")
    return {
        name: load(item.storage).as_strided(item.shape, item.strides, item.offset).clone()
        for name, item in stored.items()
    }


def flat(module: Module, prefix: str, seen: set[int]) -> dict[str, object]:
    """List the tensors of a module and of those inside it, as its state dict does.

    Raises:
        CheckpointError: If a module is inside it twice: a small file could have any number so.
    """
    if id(module) in seen:
        raise CheckpointError(f"its module {prefix[:-1]} is also elsewhere in it")
    seen.add(id(module))
    tensors = module.items("_parameters") | module.items("_buffers")
    found = {f"{prefix}{name}": item for name, item in tensors.items()}
    for name, child in module.items("_modules").items():
        if isinstance(child, Module):
            found |= flat(child, f"{prefix}{name}.", seen)
    return found


class Unpickler(pickle.Unpickler):
    """Reads plain containers and the places of tensors; other objects become ``Inert``.

    Args:
        file: Where it reads.
        modules: Names of classes of modules, which become ``Module``; None if there are none.

    Attributes:
        storages: Those that were named, by their keys.
    """

    def __init__(self, file: BufferedIOBase, modules: re.Pattern[str] | None = None) -> None:
        super().__init__(file, encoding="latin1")
        self.file, self.modules = file, modules
        self.storages: dict[str, Storage] = {}

    def load(self) -> Any:  # noqa: ANN401 - whatever the pickle holds
        """Read one pickle, unless it numbers an object beyond those that it holds.

        For such a number, Python's own reader takes memory in its proportion, up to 64 GB.

        Raises:
            CheckpointError: If it does.
        """
        start = self.file.tell()
        for count, (opcode, argument, _) in enumerate(
            pickletools.genops(cast(IO[bytes], self.file))
        ):
            if "PUT" in opcode.name and isinstance(argument, int) and argument > count:
                raise CheckpointError(f"it is damaged (it numbers object {count} {argument})")
        self.file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> object:
        """Return what stands for a name.

        Raises:
            CheckpointError: If it is not known to be harmless.
        """
        word = f"{PYTHON_2.get(module, module)}.{name}"
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return STORAGES[name]
        known: dict[str, object] = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": self.parameter,
        }
        if word in known:
            return known[word]
        if INERT.fullmatch(word):
            return Inert
        if self.modules is not None and self.modules.fullmatch(word):
            return Module
        raise CheckpointError(
            f"it names {word}, which is not known to be harmless; nothing was run"
        )

    def persistent_load(self, place: tuple[object, ...]) -> object:
        """Read the description of a storage, or of a module's class before torch 1.6."""
        if place[0] == "module" and place[1] is Module:
            return Module
        kind, dtype, key, _, count, *view = place
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(view):
            raise CheckpointError(f"it holds a {kind}, not only tensors")
        if not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise CheckpointError(f"its storage {key!r} claims {count!r} values")
        storage = Storage(key=key, dtype=dtype, count=count)
        if self.storages.setdefault(key, storage) != storage:
            raise CheckpointError(f"its storage {key} is described in two ways")
        return storage

    def tensor(
        self,
        storage: Storage,
        offset: int,
        shape: Sequence[int],
        strides: Sequence[int],
        *_rest: object,
    ) -> Stored:
        """Describe a tensor, if it lies inside its storage."""
        stored = Stored(storage=storage, offset=offset, shape=tuple(shape), strides=tuple(strides))
        least = min((offset, *stored.shape, *stored.strides))
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        count = prod(stored.shape)
        if least < 0 or count > storage.count or (count and last >= storage.count):
            raise CheckpointError(
                f"a tensor of shape {list(stored.shape)} lies outside its storage of "
                f"{storage.count} values"
            )
        return stored

    def parameter(self, data: Stored, *_rest: object) -> Stored:
        """Take a parameter as the tensor that it is."""
        return data
