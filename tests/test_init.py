"""What ``import vqtrain`` hands out, and what it does not load before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

import vqtrain
from vqtrain.app.parts import python
from vqtrain.tokenizer import model
from vqtrain.version import __version__


def test_the_package_hands_out_what_its_pages_import() -> None:
    assert vqtrain.Tokenizer is model.Tokenizer
    assert vqtrain.build_training is python.build_training
    assert vqtrain.__version__ == __version__
    for name in vqtrain.__all__:
        assert getattr(vqtrain, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(vqtrain, "Tokeniser")
    with pytest.raises(AttributeError, match="module 'vqtrain' has no attribute 'Tokeniser'"):
        vqtrain.Tokeniser  # noqa: B018 - looking it up is what fails
    with pytest.raises(ImportError, match="Tokeniser"):
        from vqtrain import Tokeniser  # noqa: F401 - importing it is what fails


def test_torch_is_not_loaded_before_the_tokenizer_is_asked_for() -> None:
    script = "import sys, vqtrain; print(vqtrain.__version__, 'torch' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == [__version__, "False"]


# What the page on using a tokenizer says is enough.
ENOUGH = ("torch", "numpy", "safetensors", "einops", "jaxtyping", "huggingface-hub")

# Runs with the packages that those need, and as if no other one were installed.
ALONE = """
import re, sys
from importlib import metadata

def plain(name):
    return name.lower().replace("_", "-")

def requirements(name, seen):
    if name in DISTRIBUTIONS and name not in seen:
        seen.add(name)
        for line in DISTRIBUTIONS[name].requires or []:
            if "extra ==" not in line:
                requirements(plain(re.match(r"[A-Za-z0-9._-]+", line)[0]), seen)
    return seen

DISTRIBUTIONS = {plain(found.metadata["Name"]): found for found in metadata.distributions()}
closure = {"vqtrain"}
for name in sys.argv[2].split(","):
    requirements(name, closure)
owners = metadata.packages_distributions()
kept = {m for m, names in owners.items() if set(map(plain, names)) & closure}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in owners and name.partition(".")[0] not in kept:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
for absent in ("lightning", "hydra", "omegaconf", "lpips", "wandb", "PIL", "rich", "torchvision"):
    try:
        __import__(absent)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{absent} is there")

import torch
from vqtrain import Tokenizer
from vqtrain.sequence import SequenceLayout

tokenizer = Tokenizer.from_pretrained(sys.argv[1])
images = torch.rand(2, 3, 16, 24) * 2 - 1
token_ids = tokenizer.encode(images)
layout = SequenceLayout(size=tokenizer.vocab_size, text_size=256, rows=True)
sequence = layout.to_sequence(token_ids)
layout.check(sequence[0])
assert layout.to_token_ids(sequence).equal(token_ids)
assert layout.find(sequence[0])[0].token_ids.shape[-2:] == token_ids.shape[1:]
print(*tokenizer.decode(token_ids).shape)
"""


def test_a_trained_tokenizer_is_used_with_few_packages(tmp_path: Path) -> None:
    network = {"channels": 8, "block_channels": 4, "num_blocks": 1}
    vqtrain.Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": {**network, "in_channels": 3, "num_downsamplings": 2},
        },
        codebook={"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}},
        decoder={
            "kind": "vqvae",
            "arguments": {**network, "out_channels": 3, "num_upsamplings": 2},
        },
        channels=3,
    ).save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path), ",".join(ENOUGH)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "2 3 16 24\n"
