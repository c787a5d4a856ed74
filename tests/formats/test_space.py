"""A Space: what is in the folder, and what its app answers."""

import ast
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.formats.parts.space_app import app_of
from vqtrain.formats.space import Space


@pytest.fixture
def images() -> list[Tensor]:
    return [torch.rand(2, 3, 16, 24) * 2 - 1]


def test_the_folder_goes_to_the_hub_as_a_space(
    make_tokenizer: Callable[..., Tokenizer],
    images: list[Tensor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    told: list[object] = []

    class Hub:
        """Notes what it is told, and which files there are."""

        def create_repo(self, repo_id: str, **options: object) -> None:
            told.append((repo_id, options["repo_type"], options["space_sdk"], options["private"]))

        def upload_folder(self, *, repo_id: str, folder_path: Path, repo_type: str) -> None:
            told.append((repo_id, repo_type, {file.name for file in folder_path.iterdir()}))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    tokenizer = make_tokenizer("fsq", training={"name": 'mine: "f4"'})
    agreement = Space(push="me/mine", license="mit").export(tokenizer, tmp_path, images=images)
    assert (agreement.images, agreement.ids, agreement.other_ids) == (2, 48, 0)
    files = {"README.md", "app.py", "requirements.txt", "tokenizer"}
    assert told == [("me/mine", "space", "gradio", True), ("me/mine", "space", files)]
    _, front, _ = (tmp_path / "README.md").read_text().split("---\n", maxsplit=2)
    facts = yaml.safe_load(front)
    assert (facts["title"], facts["sdk"], facts["app_file"]) == ('mine: "f4"', "gradio", "app.py")
    assert (facts["license"], facts["python_version"]) == ("mit", "3.11")
    assert f"gradio=={facts['sdk_version']}\n" in (tmp_path / "requirements.txt").read_text()


@pytest.mark.parametrize(
    ("axes", "shape", "rows", "columns"),
    [(2, (2, 3), 2, 3), (2, (2, 2, 3), 4, 3), (1, (7,), 3, 3), (1, (2, 5), 3, 4)],
)
def test_each_token_has_a_place_and_each_id_a_color(
    axes: int,
    shape: tuple[int, ...],
    rows: int,
    columns: int,
    make_tokenizer: Callable[..., Tokenizer],
) -> None:
    source = ast.parse(app_of(make_tokenizer("fsq"), "mine"))
    names = ("places", "cell", "token_map")
    source.body = [each for each in source.body if getattr(each, "name", None) in names]
    app = {"np": np, "AXES": axes, "CELL": 2, "LONGEST": 8}
    exec(compile(source, "app.py", "exec"), app)
    laid = app["places"](shape)
    assert laid.shape == (rows, columns)
    assert sorted(laid[laid >= 0]) == list(range(int(np.prod(shape))))
    ids = np.arange(np.prod(shape)).reshape(shape) // 2  # two of each
    drawn = app["token_map"](ids, 1)
    side = app["cell"](laid)
    assert drawn.shape == (rows * side, columns * side, 3)
    colors = {int(n): tuple(drawn[side * r, side * c]) for (r, c), n in np.ndenumerate(laid)}
    assert colors[1] == (255, 255, 255)
    assert colors[2] == colors[3] != colors[0]
    assert len(set(colors.values())) == len(np.unique(ids)) + 1


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run the app in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "temporary"),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONUNBUFFERED": "1",
    }
    with subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "Running on local URL" in line:
                    break
            else:
                pytest.fail("".join(lines))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.mark.slow
def test_the_app_answers(
    make_tokenizer: Callable[..., Tokenizer],
    images: list[Tensor],
    pictures: Path,
    tmp_path: Path,
) -> None:
    tokenizer = make_tokenizer("residual")
    Space().export(tokenizer, tmp_path, images=images)
    file = min(pictures.iterdir())
    expected = tokenizer.encode(tokenizer.preprocess(Image.open(file)))
    with served(tmp_path) as address:
        client = Client(address, verbose=False, download_files=str(tmp_path / "answers"))
        (_, shown), _, ids, said = client.predict(handle_file(file), api_name="/tokenize")
        changed, _, ids_changed = client.predict(ids, 3, 5, api_name="/change")
        with pytest.raises(AppError, match=r"^id must be in 0..15, got 16$"):
            client.predict(ids, 3, 16, api_name="/change")
    assert torch.equal(torch.tensor(ids)[None], expected)
    # 24 x 20 px in tokens of 4 x 4 px, with four ids each.
    assert said.startswith("24 x 20 px, 120 tokens of 16 ids, 1.000 bits per pixel, PSNR ")
    given = expected.clone()
    given.view(-1)[3] = 5
    assert torch.equal(torch.tensor(ids_changed)[None], given)
    for path, token_ids in ((shown, expected), (changed, given)):
        pixels = tokenizer.to_pixels(tokenizer.decode(token_ids))[0].permute(1, 2, 0)
        assert np.array_equal(np.asarray(Image.open(path)), pixels.numpy())
