"""The command lines of a sweep's runs, and what launches them."""

import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from vqtrain.app.parts.compose import compose, parse, put, read_command_line
from vqtrain.app.parts.keys import read_values
from vqtrain.app.parts.pages import page_of
from vqtrain.app.parts.resume import FREE, differences
from vqtrain.errors import ConfigError
from vqtrain.evaluation.models import names_of
from vqtrain.launchers.local import Local
from vqtrain.launchers.slurm import Slurm
from vqtrain.sweeps import commands
from vqtrain.sweeps.commands import (
    ProbeRequest,
    check_keys,
    evaluate_command,
    make_launcher,
    metrics_of,
    probe_command,
    train_command,
)
from vqtrain.sweeps.job import SweepJob

MakeJob = Callable[..., SweepJob]


@pytest.fixture(scope="module")
def usual() -> dict[str, Any]:
    """The configuration of a run, composed once."""
    return compose("train", read_command_line([]))


@pytest.fixture
def make_job(usual: dict[str, Any]) -> MakeJob:
    """Make a run of a sweep: values are put into its configuration."""

    def make(*words: str, run_dir: str = "sweep/jobs/seed1", **values: object) -> SweepJob:
        config = deepcopy(usual)
        for key, value in values.items():
            put(config, key.replace("__", "."), value)
        return SweepJob(
            name=Path(run_dir).name,
            values={"seed": 1},
            config=config,
            words=words,
            run_dir=Path(run_dir),
            parameters=1,
            flops=1,
            has_ids=True,
        )

    return make


# Training.


def test_a_run_is_trained_or_goes_on_in_its_folder(make_job: MakeJob) -> None:
    job = make_job("seed=1", "name=mine", "optim.lr=1", "data.train=a b,c.tar")
    assert train_command(job, "sweep") == [
        *("train", "seed=1", "optim.lr=1", "data.train=a b,c.tar"),
        *('name="seed1"', "run_dir=sweep/jobs/seed1", "resume=auto"),
    ]


def test_a_train_command_describes_the_run(usual: dict[str, Any]) -> None:
    words = ["data.train=a/{0..9} b,c.tar", "seed=1", "name='x y'"]
    config = compose("train", read_command_line(words))
    job = SweepJob(
        name="1e-3_[x]",
        values={},
        config=config,
        words=words,
        run_dir=Path("/a, b/{c}=d"),
        parameters=1,
        flops=1,
        has_ids=True,
    )
    typed = compose("train", read_command_line(train_command(job, "sweep")[1:]))
    assert differences(config, typed, free=FREE, warned=()) == ([], [])
    assert typed["data"]["train"] == "a/{0..9} b,c.tar"
    assert typed["seed"] == 1 != usual["seed"]
    assert (typed["name"], typed["run_dir"], typed["resume"]) == ("1e-3_[x]", "/a, b/{c}=d", "auto")


WANDB = {"kind": "wandb", "project": "p", "entity": None, "group": None}


@pytest.mark.parametrize(
    "group", ["sizes", "my, sizes", "gr\xf6\xdfe", 'a"b', "[x]", "1", "true", "a=b"]
)
def test_wandb_holds_the_runs_together(make_job: MakeJob, group: str) -> None:
    words = train_command(make_job("logger=wandb", logger=WANDB), group)
    typed = compose("train", read_command_line(words[1:]))
    assert typed["logger"] == {
        "kind": "wandb",
        "project": "vqtrain",
        "entity": None,
        "group": group,
    }


def test_a_group_that_was_asked_for_stays(make_job: MakeJob) -> None:
    job = make_job("logger=wandb", "logger.group=mine", logger={**WANDB, "group": "mine"})
    assert [word for word in train_command(job, "sweep") if "group" in word] == [
        "logger.group=mine"
    ]


@pytest.mark.parametrize("kind", ["none", "tensorboard"])
def test_other_loggers_have_no_groups(make_job: MakeJob, kind: str) -> None:
    job = make_job(f"logger={kind}", logger={"kind": kind})
    assert not [word for word in train_command(job, "sweep") if "group" in word]


# Evaluation.


def values_of(words: list[str]) -> dict[str, Any]:
    """Read an evaluation's command line as the command does."""
    assert words[0] == "evaluate"
    return read_values(page_of("evaluate"), words[1:])


def test_a_run_is_evaluated_as_it_was_validated(make_job: MakeJob) -> None:
    words = evaluate_command(make_job(data__num_workers=3), images=[], metrics=["psnr", "ssim"])
    assert words == [
        *("evaluate", "tokenizer=sweep/jobs/seed1", "out=sweep/jobs/seed1/evaluation"),
        *("metrics=[psnr,ssim]", "num_workers=3", "baselines=false", "cost=false", "worst=0"),
    ]
    values = values_of(words)
    assert values["metrics"] == ["psnr", "ssim"]
    assert (values["images"], values["num_workers"], values["allow"]) == (None, 3, [])
    assert (values["baselines"], values["cost"], values["worst"]) == (False, False, 0)


def test_images_are_those_typed(make_job: MakeJob) -> None:
    words = evaluate_command(make_job(), images=["images=a/{0..9} b,c.tar"], metrics=["psnr"])
    assert values_of(words)["images"] == "a/{0..9} b,c.tar"


@pytest.mark.parametrize(
    ("accelerator", "device"), [("cpu", "cpu"), ("auto", "auto"), ("gpu", "auto")]
)
def test_what_was_trained_on_the_cpu_is_evaluated_there(
    make_job: MakeJob, accelerator: str, device: str
) -> None:
    job = make_job(trainer__accelerator=accelerator)
    words = evaluate_command(job, images=[], metrics=["psnr"])
    assert values_of(words)["device"] == device


@pytest.mark.parametrize(
    "run_dir",
    [
        "/a,b/jobs/x",
        "[a]/jobs/x",
        "gr\xf6\xdfe, wei\xdf/jobs/x",
        "a b/{0..9}=~#/jobs/x",
        '/a, "b"/jobs/x',
        "it's, so/jobs/x",
        "${a},b/jobs/x",
        "gr\xf6\xdfe/jobs/x",
    ],
)
def test_any_folder_is_one_tokenizer(make_job: MakeJob, run_dir: str) -> None:
    words = evaluate_command(make_job(run_dir=run_dir), images=[], metrics=["psnr"])
    assert names_of(values_of(words[:2])["tokenizer"]) == [run_dir]


def test_third_parties_that_were_trained_are_trusted(make_job: MakeJob) -> None:
    job = make_job(
        encoder={"kind": "mine.encoders:Mine"},
        decoder={"kind": "mine.decoders:Mine"},
        codebook={"kind": "other:Theirs", "size": 4},
    )
    words = evaluate_command(job, images=[], metrics=["psnr"])
    assert values_of(words)["allow"] == ["mine", "other"]


def test_a_third_partys_codebook_inside_another_is_trusted_too(make_job: MakeJob) -> None:
    job = make_job(codebook={"kind": "grouped", "inner": {"kind": "other.vq:Theirs"}})
    words = evaluate_command(job, images=[], metrics=["psnr"])
    assert values_of(words)["allow"] == ["other"]


def test_weights_that_were_given_are_used(make_job: MakeJob) -> None:
    job = make_job(
        weights__alex="/a b/{x},=~.pth", weights__inception="i.pth", weights__squeeze="s.pth"
    )
    words = evaluate_command(job, images=[], metrics=["lpips_alex"])
    values = values_of(words)
    assert (values["weights"]["alex"], values["weights"]["inception"]) == (
        "/a b/{x},=~.pth",
        "i.pth",
    )
    # None for what was not given.
    assert [word for word in words if word.startswith("weights.")] == [
        *("weights.alex=/a b/{x},=~.pth", "weights.squeeze=s.pth", "weights.inception=i.pth")
    ]


# Probing.


def test_a_run_is_probed_with_its_own_images(make_job: MakeJob) -> None:
    job = make_job(
        data__num_workers=3,
        data__crop="resize",
        data__train="a b,c.tar",
        trainer__accelerator="cpu",
        weights__inception="i.pth",
        codebook={"kind": "grouped", "inner": {"kind": "other.vq:Theirs"}},
    )
    options = {"transformer.budget": 1e12, "perturb.shares": [0.5], "weights.vgg": "/{x}.pth"}
    request = ProbeRequest(stages=["entropy", "transformer"], options=options)
    assert probe_command(job, request, images=[]) == [
        *("probe", "tokenizer=sweep/jobs/seed1", "images=a b,c.tar", "val=auto"),
        *("out=sweep/jobs/seed1/probe", "crop=resize", "device=cpu", "num_workers=3"),
        *("allow=[other]", "weights.inception=i.pth", "probe=[entropy,transformer]"),
        *("transformer.budget=1000000000000.0", "perturb.shares=[0.5]", "weights.vgg=/{x}.pth"),
    ]
    words = probe_command(job, request, images=["images=a/{0..9} b,c.tar"])
    assert "val=a/{0..9} b,c.tar" in words
    assert "val=auto" not in words


@pytest.mark.parametrize(
    "images",
    [
        "a/{0..9} b,c.tar",
        "[a].png",
        ["a, b", {"images": "gr\xf6\xdfe=~#/{0..9}", "weight": 2.5}],
    ],
)
def test_images_of_any_kind_are_read_as_they_were(make_job: MakeJob, images: object) -> None:
    request = ProbeRequest(stages=["entropy"])
    words = probe_command(make_job(data__train=images), request, images=[])
    found = values_of(["evaluate", *(word for word in words if word.startswith("images="))])
    assert found["images"] == (["[a].png"] if images == "[a].png" else images)


# Metrics.


ALEX, VGG = ({"kind": "lpips", "network": network} for network in ("alex", "vgg"))


def job_with(make_job: MakeJob, names: list[object]) -> SweepJob:
    return make_job(metrics={"names": names, "best": None})


def test_metrics_are_those_of_the_validation(make_job: MakeJob) -> None:
    for names in (["psnr", "ssim"], ["ssim"], ["psnr", ALEX, "some.package:Metric"]):
        assert metrics_of([job_with(make_job, names)]) == names


def test_metrics_are_the_same_for_all_runs(make_job: MakeJob) -> None:
    jobs = [job_with(make_job, ["psnr", VGG]), job_with(make_job, ["ssim", ALEX, "psnr"])]
    assert metrics_of(jobs) == ["psnr", VGG, "ssim", ALEX]


def test_metrics_with_arguments_are_read_as_they_were(make_job: MakeJob) -> None:
    metrics = ["psnr", ALEX, {"kind": "torchmetrics.image:X", "name": "a b,c", "sizes": [7, 7]}]
    words = evaluate_command(make_job(), images=[], metrics=metrics)
    (typed,) = (word for word in words if word.startswith("metrics="))
    assert parse(typed).value() == metrics


# Launchers.


@pytest.fixture
def machine(monkeypatch):
    """Be on a machine with so many GPUs and cores; return the places that are made of them."""
    places: list[int] = []

    class Noted(Local):
        def __init__(self, *, processes: int = 1) -> None:
            places.append(processes)
            super().__init__(processes=processes)

    def be(*, gpus: int, cores: int, threads: str | None = None) -> list[int]:
        monkeypatch.setattr(commands, "gpus", lambda: [str(n) for n in range(gpus)])
        monkeypatch.setattr(commands, "count_cores", lambda: cores)
        monkeypatch.setattr(commands, "Local", Noted)
        monkeypatch.setattr(
            commands,
            "resolve",
            lambda group, word: Noted if word == "local" else original(group, word),
        )
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if threads is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", threads)
        return places

    original = commands.resolve
    return be


@pytest.mark.parametrize(
    ("gpus", "cores", "devices", "needs", "place", "threads"),
    [
        (0, 8, None, 1, 1, None),  # one run has all cores
        (0, 8, 2, 1, 2, "4"),
        (0, 8, 3, 1, 3, "2"),
        (0, 2, 5, 1, 5, "1"),  # at least one
        (0, 8, None, 4, 4, None),  # one run of four processes, which share the cores by themselves
        (0, 8, 8, 4, 8, "1"),
        (4, 8, None, 1, 4, None),
        (4, 8, 2, 1, 2, None),
        (4, 8, 8, 1, 8, None),
        (2, 8, None, 4, 4, None),
    ],
)
def test_places_and_threads_on_this_machine(
    make_job: MakeJob, machine, gpus, cores, devices, needs, place, threads
) -> None:
    places = machine(gpus=gpus, cores=cores)
    jobs = [make_job(), make_job(trainer__devices=needs)]
    launcher, environment = make_launcher("local", devices=devices, options={}, jobs=jobs)
    assert isinstance(launcher, Local)
    assert places == [place]
    assert environment == ({} if threads is None else {"OMP_NUM_THREADS": threads})


def test_threads_that_were_asked_for_stay(make_job: MakeJob, machine) -> None:
    machine(gpus=0, cores=8, threads="3")
    _, environment = make_launcher("local", devices=2, options={}, jobs=[make_job()])
    assert environment == {}
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_launchers_elsewhere_get_their_options(make_job: MakeJob) -> None:
    launcher, environment = make_launcher(
        "slurm", devices=None, options={"cluster": "local"}, jobs=[make_job()]
    )
    assert isinstance(launcher, Slurm)
    assert environment == {}
    with pytest.raises(ConfigError, match=r"launcher_options.*partitoin"):
        make_launcher("slurm", devices=None, options={"partitoin": "gpu"}, jobs=[make_job()])


def test_keys_that_do_not_fit_are_refused() -> None:
    check_keys("local", None, {})
    check_keys("local", 3, {})
    check_keys("slurm", None, {"partition": "gpu"})
    for launcher, devices, options, message in (
        ("slurm", 2, {}, "devices=2 is for this machine: remove devices or launcher"),
        ("local", None, {"a": 1}, "launcher=local takes no launcher_options"),
        ("slrum", None, {}, "unknown kind 'slrum', did you mean 'slurm'"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_keys(launcher, devices, options)
