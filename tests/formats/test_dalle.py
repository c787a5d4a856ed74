"""DALL-E's tokenizer, beside a forward pass written from its description."""

import os
import sys
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain.errors import CheckpointError
from vqtrain.formats.dalle import DALLE

WIDTHS, DIM, CODES = (4, 8), 5, 12
CLASSES = {
    "dall_e": (),
    "dall_e.encoder": ("Encoder", "EncoderBlock"),
    "dall_e.decoder": ("Decoder", "DecoderBlock"),
    "dall_e.utils": ("Conv2d",),
}
Modules = dict[str, nn.Module]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Modules:
    """An encoder and a decoder of two groups of two blocks, of classes with the published names."""
    torch.manual_seed(0)
    made: dict[str, type[nn.Module]] = {}
    for module, names in CLASSES.items():
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        for name in names:
            made[name] = type(name, (nn.Module,), {"__module__": module})
            setattr(sys.modules[module], name, made[name])

    def sequence(**layers: nn.Module) -> nn.Module:
        return nn.Sequential(OrderedDict(layers))

    def conv(of: int, to: int, kernel: int) -> nn.Module:
        layer = made["Conv2d"]()
        layer.w = nn.Parameter(torch.randn(to, of, kernel, kernel) / (of * kernel**2) ** 0.5)
        layer.b = nn.Parameter(0.2 * torch.randn(to))
        layer.kw, layer.device = kernel, torch.device("cpu")  # as its code keeps arguments
        return layer

    def block(side: str, of: int, to: int) -> nn.Module:
        layer = made[f"{side}Block"]()
        layer.id_path = nn.Identity() if of == to else conv(of, to, 1)
        layers: dict[str, nn.Module] = {}
        kernels = (3, 3, 3, 1) if side == "Encoder" else (1, 3, 3, 3)
        inside = (of, to // 4, to // 4, to // 4, to)
        for number, kernel in enumerate(kernels):
            layers[f"relu_{number + 1}"] = nn.ReLU()
            layers[f"conv_{number + 1}"] = conv(inside[number], inside[number + 1], kernel)
        layer.res_path = sequence(**layers)
        return layer

    def group(side: str, of: int, to: int, **last: nn.Module) -> nn.Module:
        return sequence(block_1=block(side, of, to), block_2=block(side, to, to), **last)

    narrow, wide = WIDTHS
    encoder, decoder = made["Encoder"](), made["Decoder"]()
    encoder.blocks = sequence(
        input=conv(3, narrow, 7),
        group_1=group("Encoder", narrow, narrow, pool=nn.MaxPool2d(2)),
        group_2=group("Encoder", narrow, wide),
        output=sequence(relu=nn.ReLU(), conv=conv(wide, CODES, 1)),
    )
    decoder.blocks = sequence(
        input=conv(CODES, DIM, 1),
        group_1=group("Decoder", DIM, wide, upsample=nn.Upsample(scale_factor=2)),
        group_2=group("Decoder", wide, narrow),
        output=sequence(relu=nn.ReLU(), conv=conv(narrow, 6, 1)),
    )
    return {"encoder": encoder, "decoder": decoder}


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Write modules as their files are, and convert them where their classes are not."""

    def converted(modules: Modules, *, new: bool = True) -> Any:
        for side, module in modules.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # their classes have no source code
                file = tmp_path / f"{side}.pkl"
                torch.save(module, file, _use_new_zipfile_serialization=new)
        with monkeypatch.context() as context:
            for module in CLASSES:
                context.delitem(sys.modules, module)
            return DALLE().convert(tmp_path)

    return converted


def walk(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """A convolution, a block or a group of either network, from the names of its weights."""
    if f"{name}.w" in w:
        return F.conv2d(x, w[f"{name}.w"], w[f"{name}.b"], padding=w[f"{name}.w"].shape[-1] // 2)
    if f"{name}.block_1.res_path.conv_1.w" in w:
        return walk(w, f"{name}.block_2", walk(w, f"{name}.block_1", x))
    h = x
    for layer in range(1, 5):
        h = walk(w, f"{name}.res_path.conv_{layer}", F.relu(h))
    around = walk(w, f"{name}.id_path", x) if f"{name}.id_path.w" in w else x
    return around + h / 4**2  # the square of the number of blocks


@torch.no_grad()
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_ids_and_pixels_follow_the_description(
    modules: Modules, convert: Callable[..., Any], images: Tensor, new: bool
) -> None:
    w = {name: item.double() for name, item in modules["encoder"].state_dict().items()}
    h = walk(w, "blocks.input", 0.8 * (images.double() + 1) / 2 + 0.1)
    h = F.max_pool2d(walk(w, "blocks.group_1", h), 2)
    scores = walk(w, "blocks.output.conv", F.relu(walk(w, "blocks.group_2", h)))
    shift = scores.mean((0, 2, 3)).float()  # so that ids differ from place to place
    modules["encoder"].blocks.output.conv.b -= shift
    tokenizer = convert(modules, new=new)
    ids = (scores - shift[:, None, None].double()).argmax(1)
    assert len(ids.unique()) > 4
    assert torch.equal(tokenizer.encode(images), ids)

    w = {name: item.double() for name, item in modules["decoder"].state_dict().items()}
    h = walk(w, "blocks.input", F.one_hot(ids, CODES).movedim(-1, 1).double())
    h = walk(w, "blocks.group_1", h).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    six = walk(w, "blocks.output.conv", F.relu(walk(w, "blocks.group_2", h)))
    pixels = ((torch.sigmoid(six[:, :3]) - 0.1) / 0.8).clamp(0, 1)
    made = tokenizer.decode(ids)
    torch.testing.assert_close(made, (2 * pixels - 1).float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "key",
    [
        "encoder.blocks.input.w",
        "encoder.blocks.group_2.block_1.id_path.b",
        "encoder.blocks.output.conv.w",
        "decoder.blocks.input.w",
        "decoder.blocks.input.b",
        "decoder.blocks.group_2.block_2.res_path.conv_3.w",
        "decoder.blocks.output.conv.b",
    ],
)
def test_a_wrong_key_is_named(modules: Modules, convert: Callable[..., Any], key: str) -> None:
    side, _, rest = key.partition(".")
    owner, _, name = rest.rpartition(".")
    parameters = modules[side].get_submodule(owner)._parameters
    item = parameters.pop(name)
    with pytest.raises(CheckpointError, match=f"weights do not fit: .*{key} is missing"):
        convert(modules)
    parameters[f"{name}_"] = item
    with pytest.raises(CheckpointError, match=f"{key} is missing"):
        convert(modules)
    del parameters[f"{name}_"]
    parameters[name] = nn.Parameter(torch.cat([item, item[:1]]))
    with pytest.raises(CheckpointError, match=rf"weights do not fit: .*{key} is \["):
        convert(modules)


class _Call:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch ran",)


def test_nothing_is_run(
    modules: Modules, convert: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    modules["encoder"].blocks.input.device = _Call()
    with pytest.raises(CheckpointError, match=r"it names (posix|nt)\.system, .*; nothing was run"):
        convert(modules)
    assert not (tmp_path / "ran").exists()


def test_modules_of_other_packages_and_in_many_places_are_refused(
    modules: Modules, convert: Callable[..., Any]
) -> None:
    modules["encoder"].blocks.output.add_module("again", modules["encoder"].blocks.input)
    with pytest.raises(CheckpointError, match=r"module blocks\.output\.again is also elsewhere"):
        convert(modules)
    modules["encoder"] = _Call  # type: ignore[assignment]  # a class, which is no module
    with pytest.raises(CheckpointError, match=r"it names .*_Call, which is not known"):
        convert(modules)


def test_both_files_are_needed(modules: Modules, convert: Callable[..., Any]) -> None:
    del modules["decoder"]
    with pytest.raises(CheckpointError, match=r"with encoder\.pkl and decoder\.pkl is needed"):
        convert(modules)
