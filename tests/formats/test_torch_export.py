"""Graphs of PyTorch give what the tokenizer gives, on sizes and batches that were never traced."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vqtrain import Tokenizer
from vqtrain.errors import ConfigError
from vqtrain.formats.parts.graphs import traced_size
from vqtrain.formats.torch_export import TorchExport

pytestmark = pytest.mark.usefixtures("unchecked")


def pictures(tokenizer: Tokenizer) -> list[Tensor]:
    """Other batches than the two traced, and other grids than 3 x 5 where there may be others."""
    f, only = tokenizer.unit[0], traced_size(tokenizer)
    sizes = [only] * 2 if only else [(4 * f, 4 * f), (2 * f, 7 * f)]
    return [torch.rand(b, 3, *size) * 2 - 1 for b, size in zip((3, 1), sizes, strict=True)]


@pytest.mark.slow
@pytest.mark.soak  # the tests of ONNX trace the same graphs
def test_every_codebook_and_network_goes_there(tokenizer: Tokenizer, tmp_path: Path) -> None:
    images = pictures(tokenizer)
    assert len(tokenizer.encode(images[0]).unique()) > 1
    agreement = TorchExport().export(tokenizer, tmp_path, images=images)
    assert (agreement.images, agreement.other_ids) == (4, 0)


@pytest.mark.slow
def test_the_cnn_gives_what_the_tokenizer_gives_and_names_no_folder(
    make_tokenizer: Callable[..., Tokenizer], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer("vq", "cnn")
    TorchExport().export(tokenizer, tmp_path, images=pictures(tokenizer))
    encode = torch.export.load(tmp_path / "encoder.pt2").module()
    decode = torch.export.load(tmp_path / "decoder.pt2").module()
    with torch.no_grad():
        images = torch.rand(5, 3, 18, 22) * 2 - 1
        token_ids = tokenizer.encode(images)
        assert torch.equal(encode(images), token_ids)
        torch.testing.assert_close(decode(token_ids), tokenizer.decode(token_ids))
    for file in tmp_path.iterdir():
        assert str(Path(__file__).parents[2]).encode() not in file.read_bytes()  # not compressed


def test_a_continuous_codebook_is_refused(
    make_tokenizer: Callable[..., Tokenizer], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"codebook=kl is continuous.*format=safetensors"):
        TorchExport().export(make_tokenizer("kl"), tmp_path, images=[torch.zeros(1, 3, 16, 16)])
    assert list(tmp_path.iterdir()) == []


class Counting(nn.Module):
    """Looks at the pixels to decide what to do, which no graph can hold."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.downsampling = encoder, encoder.downsampling
        self.grid, self.size = encoder.grid, encoder.size
        self.sample_size = None

    def forward(self, images: Tensor) -> Tensor:
        """Encode, upside down if the picture is dark."""
        return self.encoder(images if images.mean() > 0 else images.flip(2))


def test_a_module_that_cannot_be_traced_is_named(
    make_tokenizer: Callable[..., Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.encoder = Counting(tokenizer.encoder)
    monkeypatch.setattr(Tokenizer, "folded", lambda self: self)
    with pytest.raises(ConfigError, match="cannot trace encoder=vqvae, codebook=ema, "):
        TorchExport().export(tokenizer, tmp_path, images=[torch.zeros(1, 3, 16, 16)])
