"""A written folder in an environment of torch, numpy and transformers, against the tokenizer."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from vqtrain import Tokenizer
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import in_context, kinds, split_kind
from vqtrain.formats.parts.transformers import write_model
from vqtrain.ranges import resolve_fractions

SMALL = ["encoder=vqvae", "decoder=vqvae"]
SMALL += [f"{group}.{size}" for group in ("encoder", "decoder") for size in ("channels=8",)]
SPECIAL = {"multiscale": ["codebook.scales=[1,2,4]", "codebook.num_convolutions=2"]}
# Of images; scales need square ones.
SIZE, SQUARE = (16, 24), (16, 16)

# Loads every folder, and writes what it gives beside its weights.
LOAD = """
import sys
sys.path[:] = [*sys.path, sys.argv[1]]
for name in ("vqtrain", "einops", "jaxtyping", "PIL", "torchvision"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"there is {name}")
import pathlib
import torch
from transformers import AutoModel
for folder in map(pathlib.Path, sys.argv[2:]):
    given = torch.load(folder / "given.pt")
    try:
        model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    except Exception as error:
        (folder / "refusal.txt").write_text(f"{type(error).__name__}: {error}")
        continue
    with torch.no_grad():
        output = model(given["images"])
        found = {"forward": output.reconstruction, "latents": model.latents(given["images"])}
        if "token_ids" in given:
            found["token_ids"] = model.encode(given["images"])
            found["decoded"] = model.decode(given["token_ids"])
    torch.save(found, folder / "found.pt")
"""


def requirements(*names: str) -> dict[str, importlib.metadata.Distribution]:
    """What ``pip install NAMES`` brings."""
    found: dict[str, importlib.metadata.Distribution] = {}
    pending = [(name, "") for name in names]
    done = set()
    while pending:
        name, extra = pending.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        found[name] = importlib.metadata.distribution(name)
        for line in found[name].requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                pending += [(needed.name, each) for each in ("", *needed.extras)]
    return found


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Load folders in a Python that sees the packages of transformers and torch, and no other."""
    site, cache = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("modules")
    for distribution in requirements("torch", "numpy", "transformers").values():
        for name in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(Path(str(distribution.locate_file(name))))

    def run(*folders: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LOAD, site, *folders],
            env={**os.environ, "HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def small(kind: str, size: tuple[int, ...] = SIZE) -> Tokenizer:
    """Build a small tokenizer with a codebook of some kind."""
    words = [f"codebook={kind}", *SPECIAL.get(kind, [])]
    config = resolve_fractions(compose("train", read_command_line([*SMALL, *words])), max_steps=20)
    context = {"in_channels": 3, "out_channels": 3, "sample_size": size}
    parts: dict[str, Any] = {
        part: in_context(part, split_kind(dict(config[part])), context)
        for part in ("encoder", "codebook", "decoder")
    }
    tokenizer = Tokenizer(**parts, channels=3)
    tokenizer.codebook.initialize(tokenizer.latents(torch.rand(4, 3, *size) * 2 - 1))
    return tokenizer.eval()


@torch.no_grad()
def written(tokenizer: Tokenizer, out: Path, size: tuple[int, ...] = SIZE) -> Path:
    """Write a tokenizer, with images and what it makes of them."""
    out.mkdir(parents=True)
    write_model(tokenizer, out)
    images = torch.rand(2, 3, *size) * 2 - 1
    given = {"images": images, "forward": tokenizer(images).samples}
    given["latents"] = tokenizer.latents(images)
    if tokenizer.codebook.num_codebooks:
        given["token_ids"] = tokenizer.encode(images)
        given["decoded"] = tokenizer.decode(given["token_ids"])
    torch.save(given, out / "given.pt")
    return out


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, load: Callable[..., None]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("written")
    sizes = {kind: SQUARE if kind == "multiscale" else SIZE for kind in kinds("codebook")}
    # Folders of one name, of which each has code of its own.
    found = {
        kind: written(small(kind, size), root / kind / "mine", size) for kind, size in sizes.items()
    }
    load(*found.values())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds("codebook"))
def test_ids_and_pixels_are_equal_without_vqtrain(kind: str, folders: dict[str, Path]) -> None:
    given, found = (torch.load(folders[kind] / f"{name}.pt") for name in ("given", "found"))
    assert set(found) == set(given) - {"images"}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, given[name], rtol=0, atol=0, msg=name)
