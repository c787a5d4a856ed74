"""A written folder in an environment of torch, numpy and transformers, against the tokenizer."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from vqtrain import Tokenizer
from vqtrain.build import kinds
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.formats.parts.transformers import write_model

# Codebooks whose ids have rows, which need latents that have them too.
ROWS = ("hierarchical", "multiscale")
CODEBOOKS = sorted({*kinds("codebook")} - {*ROWS})
# By the decoder. Its encoder goes with it, but timm, which cannot go anywhere.
NETWORKS = sorted({*kinds("decoder")} - {"vqvae"})
# Each codebook with one of the networks, so that all of both appear.
PAIRS = [
    *((codebook, "vqvae") for codebook in ROWS),
    *islice(zip(cycle(CODEBOOKS), cycle(NETWORKS)), max(len(CODEBOOKS), len(NETWORKS))),
]
# Encoders in a config.json that was changed.
WRONG = {"num_downsamplings": "__import__('os')._exit(1)"}
HOSTILE = [
    ("os:system", {"command": "exit 1"}),
    ("vqtrain.weights:find", {}),
    ("timm", {"model": "vit", "in_channels": 3}),
    ("vqvae", {"in_channels": 3, "channels": 4, "block_channels": 2, "num_blocks": 0} | WRONG),
]

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
        output = model(given["samples"])
        found = {"forward": output.reconstruction, "latents": model.latents(given["samples"])}
        if "token_ids" in given:
            found["token_ids"] = model.encode(given["samples"])
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


def size_of(tokenizer: Tokenizer, *pair: str) -> tuple[int, ...]:
    """A size of samples: no square one unless scales or the networks need that."""
    is_square = {"multiscale", "latent_query", "titok"} & {*pair}
    return tokenizer.encoder.size([4] * (len(tokenizer.downsampling) - 1) + [4 if is_square else 6])


@torch.no_grad()
def written(tokenizer: Tokenizer, out: Path, size: tuple[int, ...]) -> None:
    """Write a tokenizer, with samples and what it makes of them."""
    out.mkdir(parents=True)
    write_model(tokenizer, out)
    samples = torch.rand(2, 3, *size) * 2 - 1
    given = {"samples": samples, "forward": tokenizer(samples).samples}
    given["latents"] = tokenizer.latents(samples)
    if tokenizer.codebook.num_codebooks:
        given["token_ids"] = tokenizer.encode(samples)
        given["decoded"] = tokenizer.decode(given["token_ids"])
    torch.save(given, out / "given.pt")


@pytest.fixture(scope="session")
def root(
    tmp_path_factory: pytest.TempPathFactory,
    load: Callable[..., None],
    make_tokenizer: Callable[..., Tokenizer],
) -> Path:
    """Folders of all kinds, and some whose config.json was changed, loaded at once."""
    root = tmp_path_factory.mktemp("written")
    # Folders of one name, of which each has code of its own.
    for pair in PAIRS:
        tokenizer = make_tokenizer(*pair)
        written(tokenizer, root / "-".join(pair) / "mine", size_of(tokenizer, *pair))
    for number, (kind, arguments) in enumerate(HOSTILE):
        shutil.copytree(root / "hierarchical-vqvae", root / str(number))
        file = root / str(number) / "mine" / "config.json"
        config = json.loads(file.read_text())
        config["tokenizer"]["encoder"] = {"kind": kind, "arguments": arguments}
        file.write_text(json.dumps(config))
    load(*root.glob("*/mine"))
    return root


@pytest.mark.slow
def test_all_networks_are_among_them(root: Path) -> None:
    files = (folder / "mine" / "config.json" for folder in root.glob("*-*"))
    configs = [json.loads(file.read_text())["tokenizer"] for file in files]
    encoders = {config["encoder"]["kind"] for config in configs}
    assert encoders == {*kinds("encoder")} - {"timm"}


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_ids_and_samples_are_equal_without_vqtrain(pair: tuple[str, str], root: Path) -> None:
    folder = root / "-".join(pair) / "mine"
    given, found = (torch.load(folder / f"{name}.pt") for name in ("given", "found"))
    assert set(found) == set(given) - {"samples"}
    for name, tensor in found.items():
        # In another process the last bit may be another.
        exact = 0 if name == "token_ids" else 1e-5
        torch.testing.assert_close(tensor, given[name], rtol=0, atol=exact, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_config_that_names_other_code_runs_nothing(number: int, root: Path) -> None:
    refusal = (root / str(number) / "mine" / "refusal.txt").read_text()
    kind = HOSTILE[number][0]
    expected = f"ConfigError: encoder.kind is '{kind}', this code has: vqvae"
    if kind == "vqvae":
        expected = "ConfigError: encoder.num_downsamplings must be a whole number, got"
    assert refusal.startswith(expected)


@pytest.mark.parametrize("kind", ["residual", "lfq"])  # lfq computes buffers, which are in the file
def test_vqtrain_reads_the_folder_too(
    kind: str, make_tokenizer: Callable[..., Tokenizer], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(kind)
    write_model(tokenizer, tmp_path)
    read = Tokenizer.from_pretrained(tmp_path)
    assert read.config == tokenizer.config
    torch.testing.assert_close(read.state_dict(), tokenizer.state_dict(), rtol=0, atol=0)
    config = json.loads((tmp_path / "config.json").read_text())
    config["tokenizer"]["encoder"]["kind"] = "os:system"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="its encoder is 'os:system', code outside vqtrain"):
        Tokenizer.from_pretrained(tmp_path)


def test_code_that_is_not_ours_is_refused(
    make_tokenizer: Callable[..., Tokenizer], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer("fsq")
    tokenizer.specification["codebook"] = {"kind": "mine.codes:Codes", "arguments": {}}
    with pytest.raises(ConfigError, match=r"cannot export codebook=mine\.codes:Codes: it is code"):
        write_model(tokenizer, tmp_path)
    tokenizer.specification["codebook"] = {"kind": "fsq", "arguments": {}}
    tokenizer.specification["encoder"] = {"kind": "timm", "arguments": {}}
    with pytest.raises(ConfigError, match=r"cannot export this tokenizer: .* torch alone"):
        write_model(tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []
