"""``vqtrain sample`` as its users meet it: what it draws, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain.app.sample import choose
from vqtrain.cli import main
from vqtrain.errors import ConfigError
from vqtrain.generation.base import Condition
from vqtrain.tokenizer.model import Tokenizer

NETWORK = {"channels": 8, "block_channels": 4, "num_blocks": 1, "num_upsamplings": 2}
ENCODER = {"channels": 8, "block_channels": 4, "num_blocks": 1, "num_downsamplings": 2}
NONE, CLASSES, TEXT = Condition(), Condition(size=3, length=1), Condition(size=257, length=4)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A probe whose transformer is conditioned on 3 classes."""
    folder = tmp_path_factory.mktemp("probed")
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        encoder={"kind": "vqvae", "arguments": {"in_channels": 3, **ENCODER}},
        codebook={"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}},
        decoder={"kind": "vqvae", "arguments": {"out_channels": 3, **NETWORK}},
        channels=3,
        training={"image_size": 16},
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    shutil.copytree(pictures, folder / "pictures")
    for number, picture in enumerate(sorted((folder / "pictures").iterdir())):
        picture.with_suffix(".cls").write_text(str(number % 3))
    words = [
        *(f"tokenizer={folder / 'tokenizer'}", f"images={folder / 'pictures'}", "num_workers=0"),
        *(f"out={folder / 'probe'}", "probe=transformer", "metrics=[psnr]", "device=cpu"),
        *("transformer.condition=cls", "transformer.batch_size=1", "transformer.dim=32"),
        *("transformer.depth=1", "transformer.budget=2e8"),
    ]
    assert main(["probe", *words]) == 0
    return folder / "probe"


@pytest.fixture
def words(probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a sampling, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return ["sample", f"probe={probed}", "count=7", "device=cpu", "batch_size=4"]


def pixels_of(file: str | Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.array(image)


def test_each_class_has_a_row_and_the_same_seed_draws_the_same(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    hot = "temperature=100"  # the model is so sure of its ids that it draws the same otherwise
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert main([*words, f"out={out}", "classes=[2,0]", hot, f"seed={seed}"]) == 0
    shown = capsys.readouterr().out
    assert "images      6 in a/images\n" in shown
    assert "grid        a/grid.png\n" in shown
    names = [f"{number:05d}.png" for number in range(6)]
    assert sorted(file.name for file in Path("a/images").iterdir()) == names
    grid = pixels_of("a/grid.png")
    assert grid.shape == (2 * 16 + 2, 3 * 16 + 2 * 2, 3)
    for number, name in enumerate(names):
        top, left = number // 3 * 18, number % 3 * 18
        np.testing.assert_array_equal(
            pixels_of(f"a/images/{name}"), grid[top : top + 16, left : left + 16]
        )
    np.testing.assert_array_equal(pixels_of("b/grid.png"), grid)
    assert (pixels_of("c/grid.png") != grid).any()


@pytest.mark.parametrize(
    ("condition", "classes", "text", "expected", "columns"),
    [
        (NONE, None, None, [[]] * 7, 3),
        (CLASSES, None, None, [[0], [0], [1], [1], [2], [2]], 2),
        (CLASSES, [1], None, [[1]] * 7, 7),
        (TEXT, None, "h\u00e9", [[104, 195, 169, 256]] * 7, 3),
        (TEXT, None, None, [[256] * 4] * 7, 3),
        (TEXT, None, "longer", [[*b"long"]] * 7, 3),
    ],
)
def test_what_is_known_of_each_image(
    condition: Condition,
    classes: list[int] | None,
    text: str | None,
    expected: list[list[int]],
    columns: int,
) -> None:
    conditions, found = choose(condition, classes, text, 7)
    assert (conditions.tolist(), found) == (expected, columns)


def test_a_condition_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="trained with transformer"):
        choose(NONE, [1], None, 7)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["probe="], "name the probe: vqtrain sample probe=DIR"),
        (
            ["probe=nowhere"],
            "probe=nowhere is not a folder of vqtrain probe: probe.json or tokenizer",
        ),
        (["probe=several"], "is of several tokenizers: give one of its folders, probe=several/one"),
        (["probe=several/one"], "several/one holds no trained transformer: vqtrain probe"),
        (["probe=unfinished"], "unfinished has no transformer that is trained to its end"),
        (["classes=[0,3]"], "classes must be numbers from 0 to 2, got 3"),
        (["classes=-1"], "classes must be numbers from 0 to 2, got -1"),
        (["count=1", "classes=[0,1]"], "count must be at least 2, an image for each class, got 1"),
        (["text=cat"], "text is for a transformer that was trained with transformer.condition=txt"),
        (["count=0"], "count must be at least 1, got 0"),
        (["top_p=2"], "top_p must be above 0 and at most 1 or null, got 2"),
        (["top_k=0"], "top_k must be at least 1 or null, got 0"),
        (["temperature=-1"], "temperature must be at least 0"),
        (["out=several"], "out=several exists already: give a folder that does not"),
        (["class=1"], "unknown key 'class', did you mean 'classes'?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    probed: Path,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    changed: list[str],
    message: str,
) -> None:
    Path("several/logs").mkdir(parents=True)
    shutil.copytree(probed, "several/one", ignore=lambda *_: ["transformer", "tokens"])
    shutil.copytree(probed, "unfinished", ignore=lambda *_: ["tokens"])
    known = json.loads(Path("unfinished/probe.json").read_text())
    known["tokenizers"][0]["transformer"] = None
    Path("unfinished/probe.json").write_text(json.dumps(known))
    assert main([*words, *changed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sorted(path.name for path in Path().iterdir()) == ["several", "unfinished"]
