"""``vqtrain doctor`` on machines that lack one thing at a time."""

import importlib
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections import namedtuple
from collections.abc import Callable
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain.app import doctor
from vqtrain.cli import main

Examine = Callable[..., tuple[int, dict[str, str]]]
WEIGHTS = {
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "inception": "weights-inception-2015-12-05-6726825d.pth",
}
REAL_PROCESSES = doctor.examine_processes


@pytest.fixture(autouse=True)
def _nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """Hide the user's files and logins; start no processes, which takes seconds."""
    home = tmp_path_factory.mktemp("home")
    for name in (*filter(lambda name: name.startswith("WANDB_"), os.environ), "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    talking = doctor.Finding(name="processes", found="two can talk to each other")
    monkeypatch.setattr(doctor, "examine_processes", lambda: talking)


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str]) -> Examine:
    """Run the command; give back its exit code and each line by its name."""

    def run(*words: str) -> tuple[int, dict[str, str]]:
        code = main(["doctor", *words])
        printed = capsys.readouterr()
        assert printed.err == ""
        lines: dict[str, str] = {}
        name = ""
        for line in printed.out.splitlines():
            if line.startswith(" "):
                assert line.strip().startswith("-> ")
                lines[name] += f" {line.strip()}"
            else:
                mark, name, found = line.split(maxsplit=2)
                assert line == f"{mark:<9}{name:<12}{found}"
                lines[name] = f"{mark}: {found}"
        # What is missing has a remedy, and nothing else has.
        assert all((" -> " in line) is line.startswith("missing: ") for line in lines.values())
        assert code == int(any(line.startswith("missing: ") for line in lines.values()))
        return code, lines

    return run


def test_a_machine_on_which_all_is_well(
    examine: Examine, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "NVIDIA_GPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5})
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**21}.get)
    code, lines = examine()
    assert code == 0
    assert list(lines) == [
        *("python", "vqtrain", "torch", "lightning", "wandb", "cpu", "gpu", "processes"),
        *("runs", "cache", "demo", *WEIGHTS),
    ]
    version = sys.version_info
    assert lines["python"] == f"ok: {version.major}.{version.minor}.{version.micro}"
    threads = torch.get_num_threads()
    assert lines["torch"] == f"ok: {torch.__version__}, threads: {threads}"
    assert lines["lightning"] == f"ok: {metadata.version('lightning')}"
    assert lines["cpu"] == "ok: cores: 3, memory: 8.0 GiB"  # 2^12 x 2^21 = 2^33 bytes
    assert lines["gpu"] == "ok: none"
    free = shutil.disk_usage(tmp_path).free / 2**30
    assert lines["runs"].startswith(f"ok: {tmp_path}, free: ")
    assert float(lines["runs"].split()[-2]) == pytest.approx(free, rel=0.05)
    assert lines["cache"].startswith(f"ok: {cache}, free: ")
    assert lines["demo"] == "ok: 16 photographs of scikit-image"
    assert list(tmp_path.iterdir()) == []


def test_a_python_that_is_too_new_is_said(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "FIRST_UNSUPPORTED_PYTHON", sys.version_info[:2])
    _, lines = examine()
    assert lines["python"].startswith("missing: ")
    assert "use Python 3.11 to 3.13" in lines["python"]


@pytest.mark.parametrize(
    ("version", "is_bad"), [("2.6.1", False), ("2.6.2", True), ("2.6.3", True), ("2.6.4", False)]
)
def test_a_malicious_lightning_is_said(
    version: str, is_bad: bool, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    _, lines = examine()
    if is_bad:
        assert lines["lightning"].startswith(f"missing: {version}, a malicious release -> remove")
        assert "pip install 'lightning>=2.5.6,!=2.6.2,!=2.6.3'" in lines["lightning"]
    else:
        assert lines["lightning"] == f"ok: {version}"


def test_a_lightning_that_is_not_there_is_said(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", refuse)
    _, lines = examine()
    assert lines["lightning"].startswith("missing: not installed -> pip install 'lightning")


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_a_torch_that_cannot_be_loaded_is_said(
    error: type[Exception], examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = importlib.import_module

    def refuse(name: str) -> object:
        if name == "torch":
            raise error("libcudart.so.13: cannot open shared object file\nand more")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    monkeypatch.delitem(sys.modules, "torch")
    _, lines = examine()
    assert lines["torch"] == (
        "missing: cannot be imported: libcudart.so.13: cannot open shared object file -> install "
        "it anew, as https://pytorch.org/get-started says for this machine"
    )
    assert "gpu" not in lines


def test_a_wandb_is_seen_without_being_imported(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    version = metadata.version("wandb")
    code, lines = examine()
    assert code == 0
    offline = f"ok: {version}, logger=wandb is offline here: not logged in, or set so"
    assert lines["wandb"] == offline
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    assert examine()[1]["wandb"] == f"ok: {version}, logged in"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert examine()[1]["wandb"] == offline
    monkeypatch.setenv("WANDB_MODE", "ofline")
    assert examine()[1]["wandb"] == (
        f"missing: {version} -> WANDB_MODE: unknown mode 'ofline', did you mean 'offline'?"
    )
    assert "wandb" not in sys.modules


def test_a_wandb_that_is_not_there_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", refuse)
    finding = doctor.examine_wandb()
    assert finding.found == "not installed; logger=wandb needs: pip install wandb"
    assert finding.remedy is None


def test_weights_are_looked_for_where_torch_keeps_them(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    (folder / WEIGHTS["alex"]).touch()
    code, lines = examine()
    assert code == 0
    assert lines["alex"] == f"ok: {folder / WEIGHTS['alex']}"
    for name in ("vgg", "squeeze", "inception"):
        assert lines[name] == (
            f"absent: not here; a run that needs it downloads it to {folder / WEIGHTS[name]}, or "
            f"give weights.{name}=PATH"
        )


@pytest.mark.slow
def test_two_processes_talk() -> None:
    assert REAL_PROCESSES() == doctor.Finding(name="processes", found="two can talk to each other")


@pytest.mark.slow
def test_two_processes_that_cannot_talk_are_said(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examine_processes", REAL_PROCESSES)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch0")
    code, lines = examine()
    assert code == 1
    assert lines["processes"].startswith("missing: two cannot talk to each other: RuntimeError: ")
    assert (
        "nosuch0 -> let no firewall close loopback; set GLOO_SOCKET_IFNAME to lo"
        in (lines["processes"])
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.exit('first\\nlast')", "last"),
        ("import os; os.kill(os.getpid(), 9)", "killed"),
        ("import time; time.sleep(60)", "no answer"),
    ],
)
def test_why_processes_do_not_talk_is_said(
    script: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TALK", script)
    monkeypatch.setattr(doctor, "TALK_TIMEOUT_S", 0.25)
    finding = REAL_PROCESSES()
    assert finding.found == f"two cannot talk to each other: {reason}"
    assert finding.remedy is not None


def test_gpus_are_named_with_their_memory(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = [
        SimpleNamespace(name="First", total_memory=80 * 2**30),
        SimpleNamespace(name="Second", total_memory=3 * 2**29),
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", gpus.__getitem__)
    _, lines = examine()
    assert lines["gpu"] == "ok: First, memory: 80.0 GiB; Second, memory: 1.5 GiB"


def test_a_gpu_that_torch_cannot_use_is_said(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    monkeypatch.setattr(doctor, "NVIDIA_GPUS", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    _, lines = examine()
    assert lines["gpu"].startswith(
        "missing: an NVIDIA GPU that torch cannot use: torch sees none -> install torch"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    _, lines = examine()
    assert lines["gpu"] == "ok: none"


def test_what_torch_says_of_the_driver_is_said(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complain() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old\nupdate", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", complain)
    _, lines = examine()
    assert "The NVIDIA driver on your system is too old -> " in lines["gpu"]


def test_a_cache_that_cannot_be_written_is_said(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file/cache"
    monkeypatch.setenv("VQTRAIN_CACHE", str(folder))
    _, lines = examine()
    assert lines["cache"] == (
        f"missing: {folder} cannot be written: Not a directory -> set VQTRAIN_CACHE to a folder "
        "that can be written"
    )


def test_a_cache_without_a_home_is_said(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("VQTRAIN_CACHE")
    monkeypatch.setattr(Path, "home", refuse)
    _, lines = examine()
    assert lines["cache"].startswith("missing: there is no home folder")


def test_a_full_disk_is_said(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 2**29))
    _, lines = examine()
    assert lines["runs"] == (
        f"missing: {tmp_path}, free: 0.5 GiB -> make room, or work in a folder that can be "
        "written, or set run_dir"
    )
    assert lines["cache"].startswith("missing: ")


def test_photographs_that_are_not_there_are_said(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModuleSpec("skimage", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(doctor, "find_spec", lambda _: spec)
    _, lines = examine()
    assert lines["demo"].startswith(
        f"missing: 16 of 16 photographs are not in {tmp_path / 'data'}: astronaut.png, brick.png, "
        "camera.png and 13 more -> pip install --force-reinstall"
    )
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    _, lines = examine()
    assert lines["demo"] == "missing: no scikit-image -> pip install 'scikit-image>=0.25'"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Five pictures of other sizes and modes."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    sizes = {"RGB": [(640, 480), (64, 200), (100, 100)], "L": [(2000, 70)], "RGBA": [(300, 200)]}
    for mode, wide in sizes.items():
        for width, height in wide:
            Image.new(mode, (width, height)).save(folder / f"{mode}-{width}.png")
    return folder


def test_pictures_are_counted_and_measured(examine: Examine, photographs: Path) -> None:
    code, lines = examine(f"images={photographs}")
    assert code == 0
    assert lines["images"] == "ok: 5, files: 5"
    # Short sides: 64, 70, 100, 200, 480.
    assert lines["sizes"] == ("ok: smallest 64 x 200 px, median 100 x 100 px, largest 640 x 480 px")
    assert lines["modes"] == "ok: RGB: 3, L: 1, RGBA: 1"
    speed, unit = lines["loading"].removeprefix("ok: ").split(maxsplit=1)
    assert int(speed) > 0
    assert unit == "images/s for each of data.num_workers"


def test_pictures_that_cannot_be_read_are_named(examine: Examine, photographs: Path) -> None:
    for name in ("RGB-640.png", "L-2000.png", "RGBA-300.png", "RGB-64.png"):
        content = (photographs / name).read_bytes()
        (photographs / name).write_bytes(content[: len(content) // 2])
    code, lines = examine(f"images={photographs}")
    assert code == 1
    named = [f"'{name}' in {photographs}/{name}.png" for name in ("L-2000", "RGB-64", "RGB-640")]
    assert lines["unreadable"] == (
        f"missing: 4 of 5 that were tried: {', '.join(named)} and 1 more -> delete them or save "
        "them anew"
    )
    assert lines["modes"] == "ok: RGB: 1"
    (photographs / "RGB-100.png").write_bytes(b"no picture")
    _, lines = examine(f"images={photographs}")
    assert lines["unreadable"].startswith("missing: 5 of 5")
    assert "sizes" not in lines


def test_of_many_pictures_a_sample_is_read_evenly(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MAX_SAMPLE", 4)
    for number in range(10):
        Image.new("RGB", (64 + number, 100)).save(tmp_path / f"{number}.png")
    # Of 0 to 9 in four: 0, 3, 6, 9.
    for number in (1, 2, 4, 5, 7, 8):
        (tmp_path / f"{number}.png").write_bytes(b"not looked at")
    code, lines = examine(f"images={tmp_path}")
    assert code == 0
    assert lines["images"] == "ok: 10, files: 10"
    assert lines["sizes"].endswith("smallest 64 x 100 px, median 70 x 100 px, largest 73 x 100 px")


@pytest.mark.parametrize(
    ("side", "hint"), [(63, 60), (32, 32), (30, 28), (8, 12), (64, None), (65, None)]
)
def test_for_tiny_pictures_a_size_is_proposed(side: int, hint: int | None) -> None:
    # Multiples of the default encoder's 4 px, and no less than SSIM can measure.
    text = doctor.describe_sizes([(side, side)] * 3, 64)
    expected = f"; smaller than data.image_size=64, try data.image_size={hint}"
    assert text.endswith(expected if hint else f"largest {side} x {side} px")


def test_of_many_names_three_are_shown() -> None:
    assert doctor.join(["a", "b", "c"]) == "a, b, c"
    assert doctor.join(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_a_list_of_sources_is_taken_as_everywhere(
    examine: Examine, pictures: Path, photographs: Path
) -> None:
    _, lines = examine(f"images=[{pictures},{photographs}]")
    assert lines["images"] == "ok: 53, files: 53"
    _, lines = examine("images=demo")
    assert lines["images"].endswith(", files: 1")


def test_the_speed_is_of_what_a_worker_does(
    examine: Examine, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(np.arange(0, 100, 0.25).tolist())
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: next(moments))
        _, lines = examine(f"images={photographs}")
    assert lines["loading"].startswith("ok: 4 images/s")  # a quarter of a second each


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["imags=x"], "unknown key 'imags', did you mean 'images'?"),
        (["data.train=x"], "unknown key 'data.train', "),
        (["images=[1,2]"], "images must be a path or a list of paths, got [1, 2]"),
        (["images=/absent"], "/absent does not exist"),
        (["images="], "no images are named"),
        (["images"], "cannot read 'images': write key=value"),
        (["--print-config"], "its only option is --help"),
        (["--halp"], "unknown option '--halp', did you mean '--help'?"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_the_help_shows_the_key_and_two_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "  images  " in shown
    assert shown.split("examples:")[1].count("vqtrain doctor") == 2


def test_a_damaged_torch_does_not_keep_the_doctor_away() -> None:
    code = "import sys, vqtrain.app.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
