"""ONNX graphs, run by onnxruntime, give what the tokenizer gives."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.errors import ConfigError
from vqtrain.formats.onnx import ONNX
from vqtrain.formats.parts.graphs import traced_size
from vqtrain.formats.parts.onnx_graphs import runner
from vqtrain.formats.parts.onnx_readme import readme

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("unchecked")


def pictures(tokenizer: Tokenizer) -> list[Tensor]:
    """Other batches than the two traced, and other grids than 3 x 5 where there may be others."""
    f, only = tokenizer.unit[0], traced_size(tokenizer)
    sizes = [only] * 2 if only else [(4 * f, 4 * f), (2 * f, 7 * f)]
    return [torch.rand(b, 3, *size) * 2 - 1 for b, size in zip((3, 1), sizes, strict=True)]


@pytest.mark.slow
def test_every_codebook_and_network_goes_there(tokenizer: Tokenizer, tmp_path: Path) -> None:
    images = pictures(tokenizer)
    assert len(tokenizer.encode(images[0]).unique()) > 1
    agreement = ONNX(precision="float32").export(tokenizer, tmp_path, images=images)
    assert (agreement.images, agreement.other_ids) == (4, 0)
    # The rest is said in a file, from which the ids keep their meaning.
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["token_ids"]["id_order"] == tokenizer.codebook.id_order
    assert half_precision_weights(tmp_path) == 0
    refuse_what_means_nothing(tokenizer, tmp_path, images[0])


@pytest.mark.slow
def test_an_encoder_of_timm_goes_there(
    make_tokenizer: Callable[..., Tokenizer], tmp_path: Path
) -> None:
    size = {"sample_size": (32, 48)}
    encoder = {"in_channels": 3, "model": "test_vit", "pretrained": False, "frozen": True, **size}
    decoder = {**make_tokenizer("fsq", "vit").specification["decoder"]["arguments"], **size}
    tokenizer = Tokenizer(
        encoder={"kind": "timm", "arguments": encoder},
        codebook=make_tokenizer("fsq").specification["codebook"],
        decoder={"kind": "vit", "arguments": {**decoder, "patch_size": 16}},
        channels=3,
    ).eval()
    images = [torch.rand(3, 3, 32, 48) * 2 - 1]
    assert len(tokenizer.encode(images[0]).unique()) > 1
    agreement = ONNX(precision="float32").export(tokenizer, tmp_path, images=images)
    assert (agreement.images, agreement.other_ids) == (3, 0)


def half_precision_weights(folder: Path) -> int:
    weights = onnx.load(folder / "encoder.onnx").graph.initializer
    return sum(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights)


def refuse_what_means_nothing(tokenizer: Tokenizer, folder: Path, images: Tensor) -> None:
    encode, decode = runner(folder / "encoder.onnx"), runner(folder / "decoder.onnx")
    with_nan = images.clone()
    with_nan[-1, -1, -1, -1] = torch.nan
    for wrong in (with_nan, images + 3):
        with pytest.raises(Exception, match=r"Gather node.* out of data bounds"):
            encode(wrong)
    for wrong in (images[:, :, 1:], images[..., 1:]):
        with pytest.raises(Exception, match=r"cannot be reshaped|invalid dimensions"):
            encode(wrong)
    for wrong_id in (-1, tokenizer.vocab_size):
        token_ids = tokenizer.encode(images)
        token_ids[0, ..., -1] = wrong_id
        with pytest.raises(Exception, match=r"Gather node.* out of data bounds"):
            decode(token_ids)


def shape(value: onnx.ValueInfoProto) -> tuple[str, list[str | int]]:
    axes = value.type.tensor_type.shape.dim
    return value.name, [axis.dim_param or axis.dim_value for axis in axes]


@pytest.mark.slow
def test_the_graphs_name_what_they_take_and_their_readme_runs(
    make_tokenizer: Callable[..., Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = make_tokenizer("grouped")
    ONNX(precision="float32").export(tokenizer, tmp_path, images=pictures(tokenizer))
    encoder, decoder = (
        onnx.load(tmp_path / f"{name}.onnx").graph for name in ("encoder", "decoder")
    )
    images = ("images", ["batch", 3, "4*rows", "4*columns"])
    token_ids = ("token_ids", ["batch", 4, "rows", "columns"])
    assert [shape(encoder.input[0]), shape(encoder.output[0])] == [images, token_ids]
    assert [shape(decoder.input[0]), shape(decoder.output[0])] == [token_ids, images]

    picture = np.random.default_rng(0).integers(0, 256, (13, 19, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    [own] = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    page = (ROOT / "docs/exporting.md").read_text()
    [documented] = (
        block for block in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "onnxruntime" in block
    )
    expected = tokenizer.encode(tokenizer.preprocess(Image.fromarray(picture)))
    assert expected.shape[2:] == (3, 4)
    pixels = tokenizer.to_pixels(tokenizer.decode(expected))[0].permute(1, 2, 0).numpy()
    for block in (own, documented):
        found: dict[str, np.ndarray] = {}
        exec(block, found)
        assert np.array_equal(found["token_ids"], expected.numpy())
        assert found["pixels"].dtype == np.uint8
        assert np.abs(found["pixels"].astype(int) - pixels).max() <= 1  # of 255, by rounding


@pytest.mark.slow
def test_half_the_precision_is_half_the_size_and_takes_the_same(
    make_tokenizer: Callable[..., Tokenizer], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer("ema")
    ONNX(precision="float16").export(tokenizer, tmp_path, images=pictures(tokenizer))
    assert half_precision_weights(tmp_path) > 0
    session = onnxruntime.InferenceSession(
        tmp_path / "decoder.onnx", providers=["CPUExecutionProvider"]
    )
    assert session.get_outputs()[0].type == "tensor(float)"
    # The codes themselves are whole.
    codes = tokenizer.codebook.vectors.numpy()
    stored = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "decoder.onnx").graph.initializer
    ]
    assert any(array.shape == codes.shape and np.array_equal(array, codes) for array in stored)
    assert next(tokenizer.parameters()).dtype == torch.float32


def test_the_readme_follows_pixels_and_scales(make_tokenizer: Callable[..., Tokenizer]) -> None:
    assert "[batch, 5*height/8, width/8]" in readme(make_tokenizer("hierarchical"))
    text = readme(make_tokenizer("multiscale"), "float32")
    assert "`images`: float32 [batch, 3, 16, 16]" in text
    assert "`token_ids`: int64 [batch, 26] in 0..15" in text  # 1 + 9 + 16
    text = readme(make_tokenizer("fsq", pixel_range=(-1000.0, 3000.0)), "float32")
    assert 'np.load("picture.npy")' in text
    assert "round" not in text


def test_what_is_not_there_is_said(
    make_tokenizer: Callable[..., Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, images = make_tokenizer(), [torch.zeros(1, 3, 16, 16)]
    with pytest.raises(ConfigError, match="unknown precision 'float61', did you mean 'float16'"):
        ONNX(precision="float61").export(tokenizer, tmp_path, images=images)
    monkeypatch.setattr("vqtrain.formats.parts.onnx_graphs.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'needs onnx: pip install "vqtrain\[export\]"'):
        ONNX(precision="float32").export(tokenizer, tmp_path, images=images)
    assert list(tmp_path.iterdir()) == []
