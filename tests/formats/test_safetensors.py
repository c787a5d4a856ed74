"""A tokenizer directory to publish: what is in it, and how it gets to the hub."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.errors import VqtrainError
from vqtrain.formats.safetensors import Safetensors, usage

SUMMARY = {
    "name": "mine",
    "step": 12_000,
    "image_size": 16,
    "metrics": {"val/psnr": 26.12346, "val/rfid@105": None},
}


@pytest.fixture
def images() -> list[Tensor]:
    return [torch.rand(3, 3, 16, 16) * 2 - 1, torch.rand(1, 3, 8, 24) * 2 - 1]


@pytest.fixture
def tokenizer(make_tokenizer: Callable[..., Tokenizer]) -> Tokenizer:
    return make_tokenizer("residual", training=SUMMARY)


def test_the_directory_loads_and_shows_its_pictures(
    tokenizer: Tokenizer, images: list[Tensor], tmp_path: Path
) -> None:
    agreement = Safetensors(push=None).export(tokenizer, tmp_path, images=images)
    # 3 of 4 x 4 positions and 1 of 2 x 6, with four ids each.
    assert (agreement.ids, agreement.other_ids, agreement.pixels) == (240, 0, 0.0)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "samples.png",
    ]
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(images[0]), tokenizer.encode(images[0]))
    samples = np.asarray(Image.open(tmp_path / "samples.png"))
    assert samples.shape == (32, 48, 3)
    # Originals above reconstructions, side by side: here the second of three.
    reconstruction = tokenizer.decode(tokenizer.encode(images[0][1:2]))
    for top, image in ((0, images[0][1:2]), (16, reconstruction)):
        shown = samples[top : top + 16, 16:32]
        expected = tokenizer.to_pixels(image)[0].permute(1, 2, 0).numpy()
        assert np.abs(shown.astype(int) - expected).max() <= 1


def test_the_lines_of_the_card_run(
    make_tokenizer: Callable[..., Tokenizer], tokenizer: Tokenizer
) -> None:
    picture = Image.fromarray(np.zeros((17, 24, 3), np.uint8))
    for each in (tokenizer, make_tokenizer("kl")):
        names = {"picture": picture}
        code = usage(each, None).replace('Tokenizer.from_pretrained("THIS_FOLDER")', "given")
        exec(code, {"given": each} | names, names)
        assert names["images"].shape == (1, 3, 16, 24)


def test_a_continuous_one_is_compared_by_its_images(
    make_tokenizer: Callable[..., Tokenizer], images: list[Tensor], tmp_path: Path
) -> None:
    agreement = Safetensors(push=None).export(make_tokenizer("kl"), tmp_path, images=images)
    assert (agreement.images, agreement.ids, agreement.pixels) == (4, 0, 0.0)


class Hub:
    """Stands for the hub, and keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.error: Exception | None = None

    def create_repo(
        self, repo_id: str, *, private: bool, exist_ok: bool, repo_type: str, space_sdk: None
    ) -> None:
        """Note it."""
        assert (repo_type, space_sdk) == ("model", None)
        self.calls.append(("create", repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id: str, folder_path: Path, repo_type: str) -> None:
        """Note the files, or fail."""
        assert repo_type == "model"
        if self.error is not None:
            raise self.error
        self.calls.append(("upload", repo_id, sorted(file.name for file in folder_path.iterdir())))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    return hub


def test_it_is_pushed_whole_and_seen_by_its_owner_alone(
    tokenizer: Tokenizer, images: list[Tensor], hub: Hub, tmp_path: Path
) -> None:
    Safetensors(push="me/mine").export(tokenizer, tmp_path, images=images)
    files = ["README.md", "config.json", "model.safetensors", "samples.png"]
    assert hub.calls == [("create", "me/mine", True, True), ("upload", "me/mine", files)]
    assert "hf://me/mine" in (tmp_path / "README.md").read_text()


def test_nothing_is_written_unless_somebody_is_logged_in(
    tokenizer: Tokenizer,
    images: list[Tensor],
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(VqtrainError, match="cannot publish me/mine: you are not logged in"):
        Safetensors(push="me/mine").export(tokenizer, tmp_path, images=images)
    assert (hub.calls, list(tmp_path.iterdir())) == ([], [])


def test_a_hub_that_fails_is_quoted_in_a_line(
    tokenizer: Tokenizer, images: list[Tensor], hub: Hub, tmp_path: Path
) -> None:
    hub.error = ConnectionError("no way there\nand much more")
    with pytest.raises(VqtrainError, match=r"^cannot publish me/mine: no way there$"):
        Safetensors(push="me/mine").export(tokenizer, tmp_path, images=images)
