"""The cache of reference statistics: what it depends on, and what it survives."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain.data.decoding.base import Transform
from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import SampleIndex
from vqtrain.evaluation import reference
from vqtrain.evaluation.reference import Reference, content_digest
from vqtrain.metrics.fid import FID
from vqtrain.metrics.parts.build import describe
from vqtrain.metrics.parts.moments import Moments

CPU = torch.device("cpu")
DIM = 5
PREPARATION = ImageTransform(
    image_size=16, channels=3, crop="resize", flip=False, range=None, background="white"
)


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and few features."""
    monkeypatch.setenv("VQTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(FID, "dim", DIM)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Reference]:
    """Make the place of FID under a protocol, with a file of weights of some content."""

    def make(
        protocol: str = "adm",
        content: bytes = b"weights",
        name: str = "net.pth",
        digest: str = "abc",
        transform: Transform = PREPARATION,
        device: torch.device = CPU,
    ) -> Reference:
        file = tmp_path / name
        file.write_bytes(content)
        metric = FID(protocol=protocol)
        return Reference(
            index_digest=digest,
            metric=metric,
            described=describe(metric, dict.fromkeys(metric.weights, str(file))),
            device=device,
            transform=transform,
        )

    return make


def statistics() -> Moments:
    moments = Moments(dim=DIM, device=CPU)
    moments.add(torch.rand(9, DIM), torch.ones(9, dtype=torch.bool))
    return moments


def pictures(folder: Path, count: int = 5, first: int = 0) -> SampleIndex:
    folder.mkdir()
    for number in range(count):
        pixels = np.full((16, 16, 3), first + number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return open_samples(str(folder), role="validation")


def test_what_was_saved_is_found_again(make: Callable[..., Reference]) -> None:
    moments = statistics()
    cached = make()
    assert cached.load(CPU) is None
    cached.save(moments)
    again = make().load(CPU)
    assert again is not None
    assert again.count == 9
    assert torch.equal(again.sums, moments.sums)
    assert [file.name for file in cached.path.parent.iterdir()] == [cached.path.name]


def test_all_that_changes_the_features_changes_the_place(
    make: Callable[..., Reference], monkeypatch: pytest.MonkeyPatch
) -> None:
    references = [
        make(),
        make(digest="abcd"),
        make(protocol="torch_fidelity"),
        make(content=b"others"),
        make(transform=replace(PREPARATION, crop="adm")),
        make(transform=replace(PREPARATION, image_size=32)),
        make(transform=replace(PREPARATION, background="black")),
        make(device=torch.device("meta")),
    ]
    monkeypatch.setattr(reference, "version", lambda name: f"{name} of tomorrow")
    references.append(make())
    assert len({each.path for each in references}) == len(references)


def test_the_name_of_the_weights_does_not_matter(make: Callable[..., Reference]) -> None:
    assert make().path == make(name="copy.pth").path


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_counts_as_none(kept: float, make: Callable[..., Reference]) -> None:
    cached = make()
    cached.save(statistics())
    content = cached.path.read_bytes()
    cached.path.write_bytes(content[: int(kept * len(content))])
    assert cached.load(CPU) is None


def test_a_flipped_bit_counts_as_none(make: Callable[..., Reference]) -> None:
    cached = make()
    cached.save(statistics())
    content = bytearray(cached.path.read_bytes())
    content[len(content) // 2] ^= 1
    cached.path.write_bytes(bytes(content))
    assert cached.load(CPU) is None


@pytest.mark.parametrize(
    "other", [{"sums": np.ones((2, 2))}, {"sums": np.ones((6, 6), np.float32)}, {"mu": np.ones(6)}]
)
def test_other_contents_count_as_none(
    other: dict[str, np.ndarray], make: Callable[..., Reference]
) -> None:
    cached = make()
    cached.path.parent.mkdir(parents=True)
    np.savez(cached.path, **other)
    assert cached.load(CPU) is None


def test_a_damaged_file_is_made_anew(make: Callable[..., Reference]) -> None:
    cached = make()
    cached.path.parent.mkdir(parents=True)
    cached.path.write_bytes(b"PK")
    moments = statistics()
    cached.save(moments)
    again = cached.load(CPU)
    assert again is not None
    assert torch.equal(again.sums, moments.sums)


def test_features_that_are_no_numbers_are_not_kept(make: Callable[..., Reference]) -> None:
    moments = statistics()
    moments.sums[2, 3] = torch.nan
    cached = make()
    cached.save(moments)
    assert not cached.path.exists()


def test_a_cache_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, make: Callable[..., Reference]
) -> None:
    (tmp_path / "cache").touch()  # a file where a folder should be
    cached = make()
    cached.save(statistics())
    assert cached.load(CPU) is None


def test_a_copy_under_other_names_has_the_same_content(tmp_path: Path) -> None:
    index = pictures(tmp_path / "here")
    there = tmp_path / "there"
    there.mkdir()
    for number, file in enumerate(sorted((tmp_path / "here").iterdir(), reverse=True)):
        (there / f"other-{number}.png").write_bytes(file.read_bytes())
    assert content_digest(index) == content_digest(open_samples(str(there), role="validation"))


def test_another_picture_is_another_content(tmp_path: Path) -> None:
    digests = [
        content_digest(pictures(tmp_path / "a")),
        content_digest(pictures(tmp_path / "b", first=1)),
        content_digest(pictures(tmp_path / "c", count=4)),
    ]
    index = open_samples(str(tmp_path / "c"), role="validation")
    twice = index.select(np.array([0, 1, 2, 3, 3]))
    digests.append(content_digest(twice))
    assert len(set(digests)) == 4


def test_bytes_that_change_under_the_same_name_and_size_are_seen(tmp_path: Path) -> None:
    index = pictures(tmp_path / "here")
    before = content_digest(index)
    file = tmp_path / "here" / "0.png"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(bytes(content))
    again = open_samples(str(tmp_path / "here"), role="validation")
    assert again.sizes.tolist() == index.sizes.tolist()
    assert content_digest(again) != before


def test_a_file_that_is_gone_does_not_end_it(tmp_path: Path) -> None:
    index = pictures(tmp_path / "here")
    before = content_digest(index)
    (tmp_path / "here" / "0.png").unlink()
    gone = replace(index)  # forgets the files that are open
    assert content_digest(gone) != before


RANKS = """
from vqtrain.data.sources.find import open_samples
from vqtrain.evaluation import reference
index = open_samples(FOLDER, role="validation")
with open(f"{folder}/digests-{rank}", "w") as file:
    for reference.BLOCK in (2, 8):  # 3 images and 2; all and none
        file.write(reference.content_digest(index) + "\\n")
"""


@pytest.mark.ddp
def test_ranks_agree_also_when_one_has_no_images(
    tmp_path: Path, run_ranks: Callable[[str, int], Path]
) -> None:
    digest = content_digest(pictures(tmp_path / "here"))
    folder = run_ranks(f"FOLDER = {str(tmp_path / 'here')!r}\n{RANKS}", 2)
    found = [file.read_text().split() for file in folder.glob("digests-*")]
    assert found == [[digest, digest]] * 2
