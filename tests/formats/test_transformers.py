"""The folder for transformers and diffusers: what is in it, and what their classes make of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.errors import ConfigError, VqtrainError
from vqtrain.formats import transformers
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.formats.parts.transformers import write_model
from vqtrain.formats.transformers import Transformers, loaded_and_compared, usage

# What people do with a folder, in a process of its own: both libraries keep what they import.
USE = """
import sys

sys.modules.update(dict.fromkeys(("vqtrain", "einops", "jaxtyping")))
import diffusers
import numpy
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

first, second, again = sys.argv[1:]
given = torch.load(f"{again}.pt")
pixels = numpy.load(f"{again}.npy")
found = {}
processor = AutoImageProcessor.from_pretrained(first, trust_remote_code=True)
pictures = [Image.fromarray(each) for each in pixels]
found["images"] = processor(pictures)["pixel_values"]
found["image"] = processor(pixels[0])["pixel_values"]
found["pixels"] = torch.from_numpy(numpy.stack(processor.post_process(found["images"])))
try:
    processor([pixels[0], pixels[0][:8]])
except ValueError as error:
    print(error)

model = AutoModel.from_pretrained(first, trust_remote_code=True)
model.save_pretrained(again)
processor.save_pretrained(again)
processor = AutoImageProcessor.from_pretrained(again, trust_remote_code=True)
model = AutoModel.from_pretrained(again, trust_remote_code=True)
found["saved"] = model.encode(processor(pictures)["pixel_values"])

# Two folders with other code in one process.
for name, folder in (("first", first), ("second", second)):
    model = diffusers.AutoModel.from_pretrained(folder, trust_remote_code=True)
    found[name] = model.encode(found["images"])

half = AutoModel.from_pretrained(first, trust_remote_code=True, dtype=torch.bfloat16)
types = {each.dtype for each in half.tokenizer.encoder.parameters()}
assert types == {torch.bfloat16}, types
types = {each.dtype for each in half.tokenizer.codebook.buffers() if each.is_floating_point()}
assert types == {torch.float32}, types
found["half"] = half.encode(found["images"])
torch.save(found, f"{again}.pt")
"""


@pytest.fixture
def images() -> list[Tensor]:
    return [torch.rand(3, 3, 16, 16) * 2 - 1, torch.rand(1, 3, 8, 24) * 2 - 1]


@pytest.mark.slow
def test_both_libraries_load_it_and_preprocess_as_we_do(
    make_tokenizer: Callable[..., Tokenizer], images: list[Tensor], tmp_path: Path
) -> None:
    first, second = make_tokenizer("residual"), make_tokenizer("lfq")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    agreement = Transformers(license="mit").export(first, tmp_path / "first", images=images)
    assert (agreement.images, agreement.other_ids) == (4, 0)
    write_model(second, tmp_path / "second")
    card = (tmp_path / "first" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["library_name"], front["license"]) == ("transformers", "mit")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 17, 30, 3), np.uint8)
    np.save(tmp_path / "again.npy", pixels)
    torch.save({}, tmp_path / "again.pt")
    done = subprocess.run(
        [sys.executable, "-c", USE, *(tmp_path / name for name in ("first", "second", "again"))],
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "code"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "must have one size, got [(8, 28), (16, 28)]: resize them" in done.stdout
    found = torch.load(tmp_path / "again.pt")
    expected = torch.cat([first.preprocess(picture) for picture in pixels])
    torch.testing.assert_close(found["images"], expected, rtol=0, atol=0)
    torch.testing.assert_close(found["image"], expected[:1], rtol=0, atol=0)
    assert np.array_equal(found["pixels"].numpy(), pixels[:, :16, 1:29])
    token_ids = first.encode(expected)
    for name in ("saved", "first"):
        assert torch.equal(found[name], token_ids)
    assert torch.equal(found["second"], second.encode(expected))
    assert torch.equal(Tokenizer.from_pretrained(tmp_path / "again").encode(expected), token_ids)
    assert (found["half"] == token_ids).float().mean() > 0.5


def test_the_lines_of_the_card_are_those_of_its_samples(
    make_tokenizer: Callable[..., Tokenizer], sound_tokenizer: Path
) -> None:
    lines = usage(make_tokenizer("residual"), "me/mine")
    assert 'AutoModel.from_pretrained("me/mine", trust_remote_code=True)' in lines
    assert "token_ids = model.encode(images)\nimages = model.decode(token_ids)" in lines
    assert "images = model.decode_latents(z_q)" in usage(make_tokenizer("kl"), "me/mine")
    lines = usage(Tokenizer.from_pretrained(sound_tokenizer), "me/mine")
    assert "sounds = ...  # float [b, 1, t] in [-1, 1]" in lines
    assert "AutoImageProcessor" not in lines


def test_it_is_pushed_with_its_code(
    make_tokenizer: Callable[..., Tokenizer],
    images: list[Tensor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    told: list[object] = []

    class Hub:
        """Notes what it is told."""

        def create_repo(self, repo_id: str, **options: object) -> None:
            told.append((repo_id, options))

        def upload_folder(self, *, repo_id: str, folder_path: Path, repo_type: str) -> None:
            assert repo_type == "model"
            told.append((repo_id, {file.name for file in folder_path.iterdir()}))

    def agreed(*_: object) -> Agreement:
        return Agreement(images=4, ids=240, other_ids=0, pixels=0.0)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    monkeypatch.setattr(transformers, "loaded_and_compared", agreed)
    Transformers(push="me/mine").export(make_tokenizer("residual"), tmp_path, images=images)
    model = {"repo_type": "model", "space_sdk": None}
    assert told[0] == ("me/mine", {"private": True, "exist_ok": True} | model)
    repository, files = told[1]
    assert repository == "me/mine"
    assert files == {file.name for file in tmp_path.iterdir()}
    assert {"README.md", "samples.png", "config.json", "preprocessor_config.json"} < files
    assert 'from_pretrained("me/mine"' in (tmp_path / "README.md").read_text()


def test_what_transformers_cannot_load_is_a_line(
    make_tokenizer: Callable[..., Tokenizer],
    images: list[Tensor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(transformers, "LOAD", "import sys\nraise OSError('no config')")
    with pytest.raises(VqtrainError, match=r"^transformers cannot load .*: OSError: no config$"):
        loaded_and_compared(make_tokenizer("residual"), tmp_path, images)


def test_without_transformers_nothing_is_written(
    make_tokenizer: Callable[..., Tokenizer],
    images: list[Tensor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(transformers, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="checked with transformers itself: pip install"):
        Transformers().export(make_tokenizer("residual"), tmp_path, images=images)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_license_is_refused_before_anything_is_written(
    make_tokenizer: Callable[..., Tokenizer], images: list[Tensor], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="license must be"):
        Transformers(license="My own").export(make_tokenizer("fsq"), tmp_path, images=images)
    assert list(tmp_path.iterdir()) == []
