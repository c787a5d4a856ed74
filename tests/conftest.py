"""What many tests share: a seed, tiny pictures, the command line in a process of its own, ranks."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache as once
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

# The profiler of torch reads this once in a process, whichever test uses it first.
QUIET_PROFILER = "KINETO_LOG_LEVEL"
os.environ.setdefault(QUIET_PROFILER, "99")

TINY = [
    "encoder.channels=8",
    "encoder.block_channels=4",
    "encoder.num_blocks=1",
    "decoder.channels=8",
    "decoder.block_channels=4",
    "decoder.num_blocks=1",
    "codebook.size=16",
    "codebook.dim=4",
    "data.image_size=16",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.max_steps=4",
    "trainer.log_every=1",
    "trainer.validate_every=2",
    "trainer.checkpoint_every=2",
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's own caches out of the tests."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("VQTRAIN_CACHE", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 48 smooth colored pictures of 24 x 20 px."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(48):
        corners = random.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        picture = Image.fromarray(corners).resize((24, 20), Image.Resampling.BICUBIC)
        picture.save(folder / f"picture-{number:02d}.png")
    return folder


@pytest.fixture
def tiny(pictures: Path) -> list[str]:
    """Overrides for a training run of four tiny steps."""
    return [f"data.train={pictures}", *TINY]


RunCommand = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """One thread, no checks of shapes and nothing that quiets torch, as in real use."""
    kept = {name: value for name, value in os.environ.items() if name != QUIET_PROFILER}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def vqtrain(tmp_path: Path) -> RunCommand:
    """Run ``vqtrain`` in a process of its own, in an empty folder."""

    def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vqtrain", *words]
        settings = {"cwd": tmp_path, "timeout": 240, "env": environment(), **options}
        return subprocess.run(command, capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload]  # options of subprocess

    return run


@pytest.fixture
def start_vqtrain(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start ``vqtrain`` and leave it running."""

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "vqtrain", *words],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a group of its own, so that signals can go to all of it
        )

    return start


RANK_PRELUDE = """
import os, sys
from datetime import timedelta
import torch
import torch.distributed as dist
rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world_size > 1 and __name__ == "__main__":  # not in a worker that was spawned
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank,
                            world_size=world_size, timeout=timedelta(seconds=60))
"""


@pytest.fixture
def run_ranks(tmp_path: Path) -> Callable[[str, int], Path]:
    """Run a script on several gloo ranks; it sees ``rank``, ``world_size`` and ``folder``."""

    def run(script: str, world_size: int) -> Path:
        folder = tmp_path / f"world-{world_size}"
        folder.mkdir()
        file = folder / "script.py"
        # None leaves while another still talks to it, which at times ends that one by a C++ error.
        ending = "\nif dist.is_initialized(): dist.barrier(); dist.destroy_process_group()\n"
        file.write_text(RANK_PRELUDE + script + ending)
        processes = [
            subprocess.Popen(
                [sys.executable, str(file), str(rank), str(world_size), str(folder)],
                env=environment(),
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world_size)
        ]
        errors = [process.communicate(timeout=180)[1] for process in processes]
        assert all(process.returncode == 0 for process in processes), "\n".join(errors)
        return folder

    return run


MODELS = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}


def random_tensor(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Weights that keep the size of what goes through; the classifier's take no room."""
    if not name.startswith("features."):
        return torch.zeros(1).expand(shape)
    scale = (2 / shape[1:].numel()) ** 0.5 if len(shape) == 4 else 0.1
    return scale * torch.randn(shape, generator=generator)


@pytest.fixture(scope="session")
def classifier_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a classifier's file with random weights, in the form in which torchvision publishes it.

    Takes ``vgg`` (whose file is in torch's old format), ``alex`` or ``squeeze``.
    """

    @once
    def write(network: str) -> Path:
        generator = torch.Generator().manual_seed(0)
        with torch.device("meta"):
            model = getattr(torchvision.models, MODELS[network])(weights=None)
        weights = {
            name: random_tensor(name, tensor.shape, generator)
            for name, tensor in model.state_dict().items()
        }
        file = tmp_path_factory.mktemp("classifiers") / f"{network}.pth"
        torch.save(weights, file, _use_new_zipfile_serialization=network != "vgg")
        return file

    return write


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write Inception's file with random weights, in the form in which it is published.

    They keep the size of what goes through, so that no image loses itself in it.
    """
    from torch_fidelity import FeatureExtractorInceptionV3  # slow to import

    class Empty(FeatureExtractorInceptionV3):
        """Keeps the weights it begins with, where the original has none without a file."""

        def load_state_dict(self, state_dict: object) -> None:
            """Load nothing."""
            del state_dict

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Empty("inception", ["2048"], feature_extractor_weights_path=nothing)
    generator = torch.Generator().manual_seed(0)
    weights = network.state_dict()
    for tensor in weights.values():
        if tensor.ndim == 4:
            scale = (2 / tensor[0].numel()) ** 0.5
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
    file = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(weights, file)
    return file
