"""A run's tokenizer on images of its validation."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from vqtrain import Tokenizer
from vqtrain.errors import ConfigError, DataError
from vqtrain.reports.examine import Examined, examine, open_validation
from vqtrain.training.results import read_run

MakeRun = Callable[..., Path]
CPU = torch.device("cpu")
GRAY = ["data.channels=1"]
SCALES = [
    "codebook=multiscale",
    "codebook.size=16",
    "codebook.scales=[1,2,4]",
    "codebook.num_convolutions=2",
]


def change(run: Path, group: str, key: str, value: object) -> None:
    """Change a key of a run's configuration."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[group][key] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def examined(run: Path, *, limit: int = 8, shown: int = 3) -> Examined:
    index, transform = open_validation(read_run(run))
    tokenizer = Tokenizer.from_pretrained(run / "tokenizer")
    return examine(tokenizer, index, transform, limit=limit, shown=shown, device=CPU)


def test_the_worst_are_those_with_the_lowest_psnr(make_run: MakeRun) -> None:
    found = examined(make_run("run"))
    assert (len(found.values), found.total) == (8, 16)
    assert [each.value for each in found.worst] == sorted(found.values)[:3]
    for each in [*found.some, *found.worst]:
        difference = each.versions["original"].astype(float)
        difference -= each.versions["reconstruction"]
        by_hand = 10 * np.log10(255**2 / np.mean(difference**2))
        assert each.value == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "codebooks"),
    [
        (["codebook=residual", "codebook.size=16", "codebook.num_codebooks=3"], 3),
        (["codebook=grouped", "codebook.size=16", "codebook.num_codebooks=2"], 2),
        (SCALES, 1),
        (GRAY, 1),
    ],
)
def test_every_kind_of_codebook_is_counted(
    make_run: MakeRun, words: list[str], codebooks: int
) -> None:
    found = examined(make_run("run", *words))
    assert found.codebook is not None
    assert found.codebook.histogram is not None
    assert len(found.codebook.histogram) == codebooks
    assert sum(found.codebook.histogram[0]) == found.codebook.tokens
    shapes = {name: version.shape for name, version in found.some[0].versions.items()}
    assert shapes == dict.fromkeys(("original", "reconstruction", "ids"), (16, 16, 3))


def test_a_continuous_codebook_has_no_ids(make_run: MakeRun) -> None:
    found = examined(make_run("run", "codebook=kl", "codebook.size=null"))
    assert found.codebook is None
    assert "ids" not in found.some[0].versions


def test_of_five_channels_the_first_is_shown_as_gray(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    folder.mkdir()
    arrays = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 5), dtype=np.uint8)
    for number, array in enumerate(arrays):
        np.save(folder / f"{number}.npy", array)
    five = [word.replace("=1", "=5") for word in GRAY]
    found = examined(make_run("run", f"data.train={folder}", *five), limit=1, shown=1)
    shown = found.some[0]
    original = shown.versions["original"]
    assert np.array_equal(original[..., 0], arrays[int(shown.key[0])][..., 0])
    assert np.array_equal(original[..., 0], original[..., 2])


def test_images_that_cannot_be_read_are_passed_over(make_run: MakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    run = make_run("run", f"data.val={folder}")
    pictures = Path(yaml.safe_load((run / "config.yaml").read_text())["data"]["train"])
    for number, file in enumerate(sorted(pictures.iterdir())[:4]):
        shutil.copy(file, folder / file.name)
        if number % 2:
            (folder / file.name).write_bytes(b"no picture")
    assert len(examined(run).values) == 2
    for file in folder.iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of 4 images can be read"):
        examined(run)


def test_the_images_are_those_that_the_run_was_validated_on(make_run: MakeRun) -> None:
    run = make_run("run")
    every, transform = open_validation(read_run(run))
    change(run, "trainer", "limit_val", 4)
    some, _ = open_validation(read_run(run))
    assert [some.key(n) for n in range(4)] == [every.key(n) for n in (0, 4, 8, 12)]
    assert transform.image_size == 16


@pytest.mark.parametrize("key", ["train", "val"])
def test_a_command_in_a_configuration_is_not_run(
    make_run: MakeRun, tmp_path: Path, key: str
) -> None:
    run = make_run("run")
    change(run, "data", key, [f"pipe:touch {tmp_path / 'harm'}"])
    with pytest.raises(DataError, match="is not run again"):
        open_validation(read_run(run))
    assert not (tmp_path / "harm").exists()


def test_a_configuration_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0")
    with pytest.raises(ConfigError, match="no groups data and trainer"):
        open_validation(read_run(tmp_path))
