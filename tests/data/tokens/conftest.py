"""Ten tiny pictures with captions in a tar, and an encoder whose ids depend on the whole batch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.shards.folder import read_share
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.sources.scan import scan_tar
from vqtrain.data.tokens.plan import Plan, TokenSettings, make_plan
from vqtrain.data.tokens.report import Report
from vqtrain.data.tokens.write import write

PREPARATION = ImageTransform(
    image_size=8, channels=3, crop="resize", flip=False, range=None, background="white"
)


def token_ids_of(pixels: Tensor) -> Tensor:
    """Ids of 2 x 2 places; each follows all pixels of the batch, also those of padding."""
    return (pixels[:, 0, ::4, ::4].long() + pixels.long().sum()) % 1000


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def index_of(
    tmp_path: Path,
    pixels: np.ndarray,
    encode: Callable[..., bytes],
    write_tar: Callable[[Path, dict[str, bytes]], Path],
) -> Callable[..., SampleIndex]:
    """Index the pictures; those that are named as bad are garbage."""

    def index(*bad: int, name: str = "{:03d}") -> SampleIndex:
        members = {}
        for number, picture in enumerate(pixels):
            key = name.format(number)
            members[f"{key}.png"] = b"no picture" if number in bad else encode(picture)
            members[f"{key}.txt"] = f"caption {number}".encode()
        return scan_tar(write_tar(tmp_path / "pictures.tar", members))

    return index


@pytest.fixture
def plan_of() -> Callable[..., Plan]:
    """Plan batches of 2 in shards of 4 pictures: 2 + 2 + 1 batches."""

    def plan(
        index: SampleIndex, *, sha256: str = "a", size: int = 1000, **settings: object
    ) -> Plan:
        chosen = {"batch_size": 2, "shard_size": 4, "layout": "webdataset", **settings}
        return make_plan(
            index,
            settings=TokenSettings(
                transform=PREPARATION,
                precision="32-true",
                device="cpu",
                **chosen,  # type: ignore[arg-type]  # as the test says
            ),
            tokenizer={"sha256": sha256},
            shape=(2, 2),
            size=size,
        )

    return plan


Written = Callable[..., Report | None]


@pytest.fixture
def written() -> Written:
    """Write a plan."""

    def run(
        plan: Plan,
        out: Path,
        *,
        share: str = "0/1",
        num_workers: int = 0,
        max_bad_fraction: float = 0.1,
        encode: Callable[[Tensor], Tensor] = token_ids_of,
    ) -> Report | None:
        return write(
            plan,
            out=out,
            encode=encode,
            share=read_share(share),
            num_workers=num_workers,
            max_bad_fraction=max_bad_fraction,
            progress=lambda _shard, _done, _total: None,
        )

    return run


@pytest.fixture
def content_of() -> Callable[[Path], dict[str, bytes]]:
    """Read all files below a folder."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return read


@pytest.fixture
def stopping() -> Callable[[int], Callable[[Tensor], Tensor]]:
    """Encode some batches, and then fail; ``calls`` says how many were asked for."""

    class Stopping:
        def __init__(self, after: int) -> None:
            self.after, self.calls = after, 0

        def __call__(self, pixels: Tensor) -> Tensor:
            if self.calls == self.after:
                raise KeyboardInterrupt
            self.calls += 1
            return token_ids_of(pixels)

    return Stopping


@pytest.fixture
def expected(pixels: np.ndarray) -> Callable[..., list[np.ndarray]]:
    """Work out the ids of each picture, in batches of 2 in shards of 4, some of them black."""

    def ids(*bad: int) -> list[np.ndarray]:
        good = np.array([0 if number in bad else 1 for number in range(10)])[:, None, None, None]
        seen = torch.from_numpy((pixels * good).astype(np.uint8).transpose(0, 3, 1, 2))
        batches = [seen[first : first + 2] for first in range(0, 10, 2)]
        rows = [row.numpy() for batch in batches for row in token_ids_of(batch)]
        return [row for number, row in enumerate(rows) if number not in bad]

    return ids
