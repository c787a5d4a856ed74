"""The built wheel, installed on its own and run from another folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
TINY_RUN = [
    "trainer.max_steps=2",
    "trainer.accelerator=cpu",
    "trainer.log_every=1",
    "data.image_size=32",
    "data.batch_size=2",
    "data.num_workers=0",
    "encoder=vqvae",
    "decoder=vqvae",
    "codebook=ema",
    "codebook.size=16",
]

pytestmark = pytest.mark.slow


class Installation(NamedTuple):
    """A virtual environment that holds the wheel, and sees the packages of this one."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path) -> str:
        """Run one of its commands and return what it printed."""
        program, *arguments = command
        done = subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run(build, cwd=ROOT, check=True)
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install"]
    options = ["--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *options], cwd=folder, check=True)
    # Not the checkout itself: .pth files, which lead an editable install there, work only in a
    # folder that site-packages is, and not in one that PYTHONPATH names.
    packages = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(packages), "OMP_NUM_THREADS": "1"}
    return Installation(folder, environment)


def test_the_wheel_carries_the_configs_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert configs
    assert {f"vqtrain/{path}" for path in configs} <= names
    folders = {name.split("/")[0] for name in names}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"vqtrain"}
    assert not [name for name in names if "test" in Path(name).name]


def test_the_installed_package_is_the_one_that_runs(
    installation: Installation, tmp_path: Path
) -> None:
    printed = installation.run(
        "python", "-c", "import vqtrain; print(vqtrain.__file__)", cwd=tmp_path
    )
    assert Path(printed.strip()).is_relative_to(installation.folder)


def test_module_and_script_print_the_same_help(installation: Installation, tmp_path: Path) -> None:
    script = installation.run("vqtrain", "--help", cwd=tmp_path)
    assert "train" in script
    assert installation.run("python", "-m", "vqtrain", "--help", cwd=tmp_path) == script


def test_a_tokenizer_is_trained_from_another_folder(
    installation: Installation, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    generator = np.random.default_rng(0)
    for i in range(40):
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{i}.png")
    installation.run(
        "vqtrain", "train", f"data.train={pictures}", "run_dir=run", *TINY_RUN, cwd=tmp_path
    )
    written = ["config.yaml", "metrics.jsonl", "checkpoints/last.ckpt", "tokenizer/config.json"]
    written += ["tokenizer/model.safetensors"]
    assert [name for name in written if not (tmp_path / "run" / name).is_file()] == []
