"""``vqtrain doctor`` on machines that lack one thing at a time."""

import importlib
import os
import shutil
import subprocess
import sys
import warnings
from collections import namedtuple
from collections.abc import Callable
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from vqtrain.app import doctor
from vqtrain.cli import main
from vqtrain.doctor import machine, speed
from vqtrain.doctor.findings import Finding, join

Examine = Callable[..., tuple[int, dict[str, str]]]
WEIGHTS = {
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "convnext": "convnext_small-0c510722.pth",
    "inception": "weights-inception-2015-12-05-6726825d.pth",
    "pytorch_fid": "pt_inception-2015-12-05-6726825d.pth",
    "clean_fid": "inception-2015-12-05.pt",
}
# Those that are not downloaded.
NAMED = {"i3d_styleganv": "i3d_torchscript.pt", "i3d_videogpt": "i3d_pretrained_400.pt"}
REAL_PROCESSES = machine.examine_processes


@pytest.fixture(autouse=True)
def _nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """Hide the user's files and logins; start no processes, which takes seconds."""
    home = tmp_path_factory.mktemp("home")
    for name in (*filter(lambda name: name.startswith("WANDB_"), os.environ), "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    talking = Finding(name="processes", found="two can talk to each other")
    monkeypatch.setattr(machine, "examine_processes", lambda: talking)


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
                assert line == f"{mark:<9}{name:<14}{found}"
                lines[name] = f"{mark}: {found}"
        # What is missing or slow has a remedy, and nothing else has.
        for line in lines.values():
            assert (" -> " in line) is line.startswith(("missing: ", "slow: "))
        assert code == int(any(line.startswith("missing: ") for line in lines.values()))
        return code, lines

    return run


def test_a_machine_on_which_all_is_well(
    examine: Examine, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "NVIDIA_GPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5})
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**21}.get)
    code, lines = examine()
    assert code == 0
    assert list(lines) == [
        *("python", "vqtrain", "torch", "lightning", "wandb", "cpu", "gpu", "processes"),
        *("runs", "cache", "demo", *WEIGHTS, *NAMED),
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
    monkeypatch.setattr(machine, "FIRST_UNSUPPORTED_PYTHON", sys.version_info[:2])
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
        "missing: cannot be imported: libcudart.so.13: cannot open shared object file -> reinstall "
        "it, as https://pytorch.org/get-started says for this machine"
    )
    assert "gpu" not in lines


def test_a_wandb_is_asked_whether_somebody_is_logged_in(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb
    from wandb.sdk.lib.wbauth import unauthenticate_session

    def line() -> str:
        code, lines = examine()
        wandb.teardown()
        unauthenticate_session(update_settings=False)
        assert code == int(lines["wandb"].startswith("missing"))
        return lines["wandb"]

    unauthenticate_session(update_settings=False)
    version = metadata.version("wandb")
    offline = f"ok: {version}, logger=wandb is offline here: not logged in, or set so"
    assert line() == offline
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    assert line() == f"ok: {version}, logged in"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert line() == offline
    monkeypatch.setenv("WANDB_MODE", "ofline")
    assert line() == (
        f"missing: {version} -> WANDB_MODE: unknown mode 'ofline', did you mean 'offline'?"
    )


def test_a_wandb_that_is_not_there_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", refuse)
    finding = machine.examine_wandb()
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
    for name in WEIGHTS.keys() - {"alex"}:
        assert lines[name] == (
            f"absent: not here; a run that needs it downloads it to {folder / WEIGHTS[name]}, or "
            f"give weights.{name}=PATH"
        )
    for name, file in NAMED.items():
        assert lines[name].startswith("absent: not here; if you need it, download https://")
        assert lines[name].endswith(f" to {folder / file}, or give weights.{name}=PATH")


@pytest.mark.slow
def test_two_processes_talk() -> None:
    assert REAL_PROCESSES() == Finding(name="processes", found="two can talk to each other")


@pytest.mark.slow
def test_two_processes_that_cannot_talk_are_said(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "examine_processes", REAL_PROCESSES)
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
    monkeypatch.setattr(machine, "TALK", script)
    monkeypatch.setattr(machine, "TALK_TIMEOUT_S", 0.25)
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
    monkeypatch.setattr(machine, "NVIDIA_GPUS", tmp_path)
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
    monkeypatch.setattr(machine, "find_spec", lambda _: spec)
    _, lines = examine()
    assert lines["demo"].startswith(
        f"missing: 16 of 16 photographs are not in {tmp_path / 'data'}: astronaut.png, brick.png, "
        "camera.png and 13 more -> pip install --force-reinstall"
    )
    monkeypatch.setattr(machine, "find_spec", lambda _: None)
    _, lines = examine()
    assert lines["demo"] == "missing: no scikit-image -> pip install 'scikit-image>=0.25'"


def test_of_many_names_three_are_shown() -> None:
    assert join(["a", "b", "c"]) == "a, b, c"
    assert join(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["imags=x"], "unknown key 'imags', did you mean 'images'?"),
        (["images=demo", "image_sise=8"], "unknown key 'image_sise', did you mean 'image_size'?"),
        # Neither is taken for a short key, though "decoder" is like "device".
        (["images=demo", "decoder=cnn", "foo=1"], "unknown key 'foo', --help lists"),
        (["data.train=/absent"], "data.train: /absent does not exist"),
        (["images=[1,2]"], "data.train must be demo, a folder"),
        (["images=/absent"], "data.train: /absent does not exist"),
        (["images="], "no images are named: give images=demo, "),
        (["experiment=vqvae_cifar10"], "no images are named: give images=demo, "),
        (["images=demo", "data.train=demo"], "images stands in for data.train: give one of them"),
        (["images=[demo]", "data.train=demo"], "images stands in for data.train: give one of them"),
        (["images"], "cannot read 'images': write key=value"),
        (["images=demo", "device=gpu"], "unknown device 'gpu', did you mean 'cpu'?"),
        (
            ["images=demo", "image_size=63"],
            "data.image_size=63: a sample of 63 x 63 does not divide into tokens of 4 x 4",
        ),
        (
            ["images=demo", "precision=16"],
            "one of 32-true, bf16-mixed, 16-mixed, 64-true, got 16",
        ),
        (["--halp"], "unknown option '--halp', did you mean '--help'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_short_keys_stand_for_those_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["images={a}", "image_size=32", "crop=adm", "batch_size=2", "precision=64-true"]
    words = [*short, "device=cpu", "experiment=demo", "codebook.size=8"]
    assert main(["doctor", "--print-config", *words]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    data, trainer = config["data"], config["trainer"]
    assert data["train"] == "{a}"
    assert (data["image_size"], data["crop"], data["batch_size"]) == (32, "adm", 2)
    assert (trainer["precision"], trainer["accelerator"]) == ("64-true", "cpu")
    assert (config["name"], config["codebook"]["size"]) == ("demo", 8)


def test_a_configuration_of_the_users_own_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndata: {crop: ldm}\n"
    (tmp_path / "experiment/mine.yaml").write_text(text)
    words = ["--config-dir", str(tmp_path), "experiment=mine", "images=x", "--print-config"]
    assert main(["doctor", *words]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["crop"] == "ldm"


@pytest.mark.parametrize("name", ["torch", "lightning"])
def test_without_what_a_step_needs_pictures_are_not_looked_at(name: str) -> None:
    software = [Finding(name=name, found="damaged", remedy="mend it")]
    (finding,) = doctor.examine_run(doctor.as_train(["images=demo"]), software)
    assert finding.mark == "absent"
    assert finding.found == f"not looked at: {name} comes first, see above"


def test_a_torchvision_of_another_torch_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> object:
        raise RuntimeError("operator torchvision::nms does not exist")

    words = doctor.as_train(["images=demo"])
    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", refuse)
        patch.setattr(doctor, "compose", lambda *_: {"data": {"train": "demo"}})
        (finding,) = doctor.examine_run(words, [])
    assert finding.mark == "missing"
    assert finding.found == "not looked at: operator torchvision::nms does not exist"


def test_a_run_is_examined_after_the_machine(
    examine: Examine, tiny: list[str], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "LOADING_S", 0.1)
    code, lines = examine(*tiny, "data.num_workers=1")
    assert code == 0
    names = ["images", "sizes", "modes", "loading", "memory", "device", "workers"]
    assert list(lines)[-len(names) :] == names
    size = sum(file.stat().st_size for file in pictures.iterdir())
    assert lines["images"] == (
        f"ok: 48, files: 48, {size / 1e3:.1f} kB, mean: {size / 48:.0f} bytes"
    )
    assert lines["modes"] == "ok: RGB: 48"
    assert lines["loading"].endswith(" images/s for each of data.num_workers")
    assert lines["memory"].startswith("ok: about ")
    assert lines["memory"].endswith(" would fit")
    assert " images/s on the CPU: " in lines["device"]
    assert lines["device"].endswith(" s for 4 images of 16 x 16 px, 32-true")
    assert "keeps the device busy; it is 1" in lines["workers"]


def test_the_help_shows_the_keys_and_two_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--help"]) == 0
    shown = capsys.readouterr().out
    for key in ("images", "image_size", "crop", "batch_size", "precision", "device", "part"):
        assert f"\n  {key:<10}  " in shown
    assert shown.split("examples:")[1].count("vqtrain doctor") == 3


def test_a_damaged_torch_does_not_keep_the_doctor_away() -> None:
    code = "import sys, vqtrain.app.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
