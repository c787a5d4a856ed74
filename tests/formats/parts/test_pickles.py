"""Files of others: what they hold is read, and nothing that they name is run."""

import argparse
import builtins
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from vqtrain.errors import CheckpointError
from vqtrain.formats.parts import pickles
from vqtrain.formats.parts.pickles import read_safetensors, read_weights

FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])


def save(content: object, file: Path, *, new: bool = True) -> Path:
    torch.save(content, file, _use_new_zipfile_serialization=new)
    return file


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, item in expected.items():
        assert found[name].dtype == item.dtype, name
        assert torch.equal(found[name], item), name


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """Tensors of many types and layouts."""
    drawn = torch.randn(4, 3)
    dtypes = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    return {
        "plain": drawn,
        "transposed": drawn.T,
        "part": drawn[1:, 1:],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        **{str(dtype): (10 * drawn.abs()).to(dtype) for dtype in dtypes},
    }


@FORMATS
@pytest.mark.parametrize("section", [None, "state_dict"])
def test_tensors_come_back(weights, tmp_path, new, section):
    content = weights if section is None else {section: weights, "epoch": 3}
    same(read_weights(save(content, tmp_path / "a.ckpt", new=new)), weights)


def test_safetensors_come_back(weights, tmp_path):
    weights = {name: item.contiguous() for name, item in weights.items() if name != "part"}
    same_storage = {"plain", "transposed"}
    copies = {n: item.clone() if n in same_storage else item for n, item in weights.items()}
    save_file(copies, tmp_path / "a.safetensors")
    same(read_weights(tmp_path / "a.safetensors"), weights)
    found = read_safetensors(tmp_path / "a.safetensors", lambda name: name == "scalar")
    same(found, {"scalar": weights["scalar"]})


def test_the_first_section_that_is_there_counts(tmp_path):
    content = {name: {name: torch.ones(1)} for name in ("model", "ema")}
    file = save(content, tmp_path / "a.pt")
    assert read_weights(file, ("ema", "model")).keys() == {"ema"}
    assert read_weights(file, ("state_dict", "model")).keys() == {"model"}


def test_parameters_are_read_as_tensors(tmp_path):
    layer = torch.nn.Linear(2, 3)
    found = read_weights(save(dict(layer.named_parameters()), tmp_path / "a.pt"))
    same(found, {name: item.detach() for name, item in layer.named_parameters()})


@pytest.fixture
def old_lightning(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Tensor]], object]:
    """Make what an old Lightning saved: its classes are there while saving only."""

    def make(weights: dict[str, Tensor]) -> dict[str, object]:
        modules = {
            "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint",
            "pytorch_lightning.utilities.parsing": "AttributeDict",
        }
        classes = {}
        for module, name in modules.items():
            base = dict if name == "AttributeDict" else object
            classes[name] = type(name, (base,), {"__module__": module})
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
            setattr(sys.modules[module], name, classes[name])
        callback = classes["ModelCheckpoint"]()
        callback.best = np.float64(0.5)
        parent = types.ModuleType("pytorch_lightning")
        monkeypatch.setitem(sys.modules, "pytorch_lightning", parent)
        return {
            "epoch": 3,
            "global_step": np.int64(7),
            "state_dict": OrderedDict(weights),
            "callbacks": {classes["ModelCheckpoint"]: {"best": np.float32(1), "it": callback}},
            "hyper_parameters": classes["AttributeDict"](lr=1e-4, sizes=[1, 2]),
            "config": OmegaConf.create({"model": {"sizes": [1, 2], "path": "a"}}),
            "args": argparse.Namespace(lr=1e-4, path=Path("a"), seen={1, 2}),
            "array": np.arange(3),
            "dtype": torch.float32,
            "device": torch.device("cpu"),
            "size": torch.Size([1]),
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        }

    return make


@FORMATS
def test_an_old_lightning_checkpoint_gives_its_tensors(
    weights, old_lightning, tmp_path, monkeypatch, new
):
    with monkeypatch.context():
        file = save(old_lightning(weights), tmp_path / "last.ckpt", new=new)
    monkeypatch.undo()
    gone = "pytorch_lightning.callbacks.model_checkpoint"
    sys.modules.pop(gone, None)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)  # the reason for a reader of our own
    same(read_weights(file), weights)
    assert gone not in sys.modules


class Call:
    """Calls something when it is loaded."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Tell pickle to call it."""
        return self.call


@FORMATS
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch ran",), "posix.system"),
        (eval, ("open('ran', 'w')",), "builtins.eval"),
        (exec, ("open('ran', 'w')",), "builtins.exec"),
        (getattr, ("", "upper"), "builtins.getattr"),
        (builtins.__import__, ("antigravity",), "builtins.__import__"),
        (torch.load, ("other",), "torch.serialization.load"),
        (torch.storage._load_from_bytes, (b"",), "torch.storage._load_from_bytes"),
        (np.load, ("other",), "numpy"),
    ],
)
def test_nothing_is_run(tmp_path, monkeypatch, new, function, arguments, name):
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": {"a": torch.ones(1), "b": Call(function, *arguments)}}
    file = save(content, tmp_path / "a.ckpt", new=new)
    if name == "numpy":  # harmless by name: it becomes nothing
        assert read_weights(file).keys() == {"a"}
    else:
        with pytest.raises(CheckpointError, match=f"it names {name}, .*; nothing was run"):
            read_weights(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt"]


def rewrite(file: Path, edit: Callable[[str, bytes], bytes]) -> Path:
    """Write the members of a zip archive anew."""
    edited = file.with_name(f"edited-{file.name}")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(edited, "w") as archive:
        for name in old.namelist():
            archive.writestr(name, edit(name, old.read(name)))
    return edited


def test_a_pickle_changes_no_class_of_ours(tmp_path):
    # Names argparse.Namespace, and sets an attribute of what it gets.
    program = b"\x80\x02cargparse\nNamespace\nN}U\x07changedK\x01s\x86b0}."
    file = save({"a": torch.ones(1)}, tmp_path / "a.ckpt")
    edited = rewrite(file, lambda name, data: program if name.endswith("data.pkl") else data)
    with pytest.raises(CheckpointError, match="holds no weights by name"):
        read_weights(edited)
    assert not hasattr(pickles.Inert, "changed")
    assert not hasattr(argparse.Namespace, "changed")


def test_a_storage_shorter_than_claimed_is_refused(tmp_path):
    file = save({"a": torch.arange(4.0)}, tmp_path / "a.ckpt")
    edited = rewrite(file, lambda name, data: data[:8] if name.endswith("data/0") else data)
    with pytest.raises(CheckpointError, match="storage 0 has 8 bytes, 4 values of 4 are claimed"):
        read_weights(edited)


@FORMATS
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (100, 100), (100, 1)), (2, (3,), (1,)), (0, (10**12,), (0,)), (-1, (1,), (1,))],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, new, offset, shape, strides):
    storage = torch.arange(4.0)._typed_storage()
    arguments = (storage, offset, shape, strides, False, OrderedDict())
    claim = Call(torch._utils._rebuild_tensor_v2, *arguments)
    file = save({"a": claim}, tmp_path / "a.ckpt", new=new)
    with pytest.raises(CheckpointError, match="lies outside its storage of 4 values"):
        read_weights(file)


@pytest.mark.parametrize("put", [b"r" + struct.pack("<I", 2**27), b"p134217728\n"])
def test_a_number_that_would_take_gigabytes_is_refused(tmp_path, put):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}" + put + b".")
    with pytest.raises(CheckpointError, match="it numbers object 2 134217728"):
        read_weights(tmp_path / "a.ckpt")


@FORMATS
def test_a_truncated_file_is_refused(weights, tmp_path, new):
    whole = save(weights, tmp_path / "a.ckpt", new=new).read_bytes()
    for share in (0.05, 0.5, 0.9, 0.99):
        (tmp_path / "b.ckpt").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match=r"cannot read .*b\.ckpt: it"):
            read_weights(tmp_path / "b.ckpt")


def test_a_damaged_file_is_refused_or_read(weights, tmp_path):
    whole = save(weights, tmp_path / "a.ckpt", new=False).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(15, len(whole) // 2, 3):
            damaged[place] = random.integers(256)
        (tmp_path / "b.ckpt").write_bytes(bytes(damaged))
        with suppress(CheckpointError):
            read_weights(tmp_path / "b.ckpt")


def with_header(length: int, header: bytes) -> bytes:
    return struct.pack("<Q", length) + header


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("text.ckpt", b"this is a text, and no checkpoint at all", "it is no checkpoint"),
        ("empty.ckpt", b"", "it is no checkpoint"),
        ("plain.ckpt", pickle.dumps(Call(os.system, "touch ran")), "it is no checkpoint"),
        ("a.safetensors", with_header(10 * 2**30, b'{"a":'), "it is damaged .*[Hh]eader"),
        ("named-otherwise.bin", with_header(10 * 2**30, b'{"a":'), "it is damaged .*[Hh]eader"),
        ("b.safetensors", with_header(2, b"{"), "it is damaged"),
        ("c.safetensors", b"", "it is damaged"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_weights(tmp_path / name)


def test_a_safetensors_tensor_that_claims_too_much_is_refused(tmp_path):
    header = b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
    (tmp_path / "a.safetensors").write_bytes(with_header(len(header), header) + bytes(16))
    with pytest.raises(CheckpointError, match="it is damaged"):
        read_weights(tmp_path / "a.safetensors")


def test_an_archive_that_grows_when_it_is_unpacked_is_refused(tmp_path):
    plain = save({"a": torch.zeros(10**6)}, tmp_path / "a.ckpt")
    packed = tmp_path / "packed.ckpt"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match=r"its data/0 has 4000000 bytes, the file \d+"):
        read_weights(packed)


def test_an_archive_around_a_checkpoint_is_to_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("model.ckpt", b"")
    with pytest.raises(CheckpointError, match="unpack it first"):
        read_weights(tmp_path / "model.zip")


@FORMATS
@pytest.mark.parametrize("content", [torch.ones(1), [1, 2], {}, {"epoch": 3}, {1: torch.ones(1)}])
def test_a_file_without_named_tensors_is_refused(tmp_path, new, content):
    with pytest.raises(CheckpointError, match="holds no weights by name"):
        read_weights(save(content, tmp_path / "a.ckpt", new=new))


def test_a_whole_module_is_refused(tmp_path):
    file = save({"model": torch.nn.Linear(1, 1)}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"it names torch\.nn\.modules\.linear\.Linear"):
        read_weights(file)


def test_big_endian_numbers_are_refused(tmp_path):
    file = save({"a": torch.ones(1)}, tmp_path / "a.ckpt")
    edited = rewrite(file, lambda name, data: b"big" if name.endswith("byteorder") else data)
    with pytest.raises(CheckpointError, match="big-endian"):
        read_weights(edited)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*none\.ckpt: No such file"):
        read_weights(tmp_path / "none.ckpt")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="Is a directory"):
        read_weights(tmp_path)
