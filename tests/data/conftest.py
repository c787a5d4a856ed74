"""Tiny tars and folders of pictures, and a cache folder of the test's own."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtrain.data.index import ImageIndex
from vqtrain.data.scan import scan_tar


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VQTRAIN_CACHE", str(folder))
    return folder


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """Encode an array or a picture; by default as PNG."""

    def encode(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        file = io.BytesIO()
        picture.save(file, kind, **options)
        return file.getvalue()

    return encode


@pytest.fixture
def write_tar() -> Callable[[Path, dict[str, bytes]], Path]:
    """Write a tar with these members."""

    def write(path: Path, members: dict[str, bytes]) -> Path:
        with tarfile.open(path, "w") as tar:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def numbered(tmp_path, encode, write_tar) -> Callable[[int], ImageIndex]:
    """Index n noisy 8 x 8 px pictures with the keys 000, 001 and so on."""

    def make(n: int) -> ImageIndex:
        noise = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
        members = {f"{i:03d}.png": encode(noise[i]) for i in range(n)}
        return scan_tar(write_tar(tmp_path / f"numbered-{n}.tar", members))

    return make
