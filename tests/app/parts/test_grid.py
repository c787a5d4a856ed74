"""From a command line with several values to the runs of a sweep."""

import json
from pathlib import Path
from typing import Any

import pytest

from vqtrain.app.parts import grid as module
from vqtrain.app.parts.axes import choices_of
from vqtrain.app.parts.compose import CommandLine, compose, read_command_line
from vqtrain.app.parts.grid import Checks, difference, read_grid
from vqtrain.errors import ConfigError, DataError
from vqtrain.sweeps.grid import Checked, Grid, identity, refuse_others
from vqtrain.sweeps.job import name_jobs
from vqtrain.training.run_directory import write_config

SWEEP_DIR = Path("a sweep")


COMPOSED: dict[str, dict[str, Any]] = {}


@pytest.fixture(autouse=True)
def _compose_once(monkeypatch) -> None:
    """Compose each configuration but once in all tests, as it takes its time."""

    def once(name: str, line: CommandLine) -> dict[str, Any]:
        key = repr((line.overrides, line.paths, line.config_dir))
        if key not in COMPOSED:
            COMPOSED[key] = compose(name, line)
        return COMPOSED[key]

    monkeypatch.setattr(module, "compose", once)


@pytest.fixture
def unchecked(monkeypatch) -> None:
    """Believe that all runs can be."""
    monkeypatch.setattr(Checks, "check", lambda *_: Checked(parameters=1, flops=2, has_ids=True))


def read(*words: str, sweep_dir: Path | None = SWEEP_DIR, is_here: bool = True) -> Grid:
    return read_grid(read_command_line(words), sweep_dir, is_here=is_here)


def names(grid: Grid) -> list[str]:
    return [job.name for job in grid.jobs]


# What the words of one key stand for.

GROUPS = {"codebook": ["bsq", "ema", "fsq", "kl"], "encoder": ["cnn"]}


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        ("seed=1", ["seed=1"]),
        ("seed=1,2", ["seed=1", "seed=2"]),
        ("seed=1, 2", ["seed=1", "seed=2"]),
        ("seed=choice(2,1)", ["seed=2", "seed=1"]),
        ("seed=range(0,4)", ["seed=0", "seed=1", "seed=2", "seed=3"]),
        ("seed=range(0,6,2)", ["seed=0", "seed=2", "seed=4"]),
        ("seed=sort(3,1,2)", ["seed=1", "seed=2", "seed=3"]),
        ("lr=1e-3,0.1", ["lr=0.001", "lr=0.1"]),
        ("key='a,b','c'", ["key='a,b'", "key='c'"]),
        ('key="a,b"', ['key="a,b"']),
        ("key=10%,20%", ["key=10%", "key=20%"]),
        ("key=null,true", ["key=null", "key=true"]),
        ("betas=[0.5,0.9]", ["betas=[0.5,0.9]"]),
        ("betas=[0.5,0.9],[0.9,0.99]", ["betas=[0.5,0.9]", "betas=[0.9,0.99]"]),
        ("codebook=glob(*)", ["codebook=bsq", "codebook=ema", "codebook=fsq", "codebook=kl"]),
        ("codebook=glob(*s*)", ["codebook=bsq", "codebook=fsq"]),
        ("codebook=glob([b*,k*])", ["codebook=bsq", "codebook=kl"]),
        ("codebook=glob(*,exclude=[kl,b*])", ["codebook=ema", "codebook=fsq"]),
        ("codebook=glob(k*)", ["codebook=kl"]),
        ("+key=1,2", ["+key=1", "+key=2"]),
        ("++key=1,2", ["++key=1", "++key=2"]),
        ("~key", ["~key"]),
        ("codebook.inner=fsq,ema", ["codebook.inner=fsq", "codebook.inner=ema"]),
        ("key='choice(1,2)'", ["key='choice(1,2)'"]),
        ("key=", ["key="]),
    ],
)
def test_a_word_stands_for_its_values(word: str, choices: list[str]) -> None:
    found = choices_of(word, GROUPS)
    assert [each.replace("True", "true") for each in found] == choices


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lr=interval(0,1)", r"lr=interval\(0,1\) has no end of values: list them, as in lr=0.1,0"),
        ("codebook.size=glob(*)", r"glob is for groups, such as codebook='glob\(\*\)'"),
        ("codebook=glob(x*)", r"codebook=glob\(x\*\) stands for no value"),
        ("seed=range(3,3)", r"seed=range\(3,3\) stands for no value"),
        ("seed=(1,2)", "cannot read 'seed=.1,2.': quote the value"),
        ("seed=1,,2", "cannot read 'seed=1,,2': quote the value"),
    ],
)
def test_a_word_that_stands_for_nothing_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choices_of(word, GROUPS)


# What the runs are.


@pytest.mark.usefixtures("unchecked")
def test_runs_come_in_the_order_typed_the_last_key_fastest() -> None:
    grid = read("codebook.size=32,16", "trainer.max_steps=9", "codebook=vq,ema", "seed=1")
    assert names(grid) == ["size32_vq", "size32_ema", "size16_vq", "size16_ema"]
    assert grid.axes == {"codebook.size": [32, 16], "codebook": ["vq", "ema"]}
    assert list(grid.axes) == ["codebook.size", "codebook"]
    job = grid.jobs[1]
    assert job.values == {"codebook.size": 32, "codebook": "ema"}
    assert job.words == ["codebook.size=32", "trainer.max_steps=9", "codebook=ema", "seed=1"]
    assert (job.kind, job.config["codebook"]["size"], job.config["seed"]) == ("ema", 32, 1)
    assert job.run_dir == SWEEP_DIR / "jobs/size32_ema"
    assert (grid.sweep_dir, grid.equal, job.max_steps) == (SWEEP_DIR, 0, 9)


@pytest.mark.usefixtures("unchecked")
def test_the_words_of_a_run_describe_it_again() -> None:
    words = ["data.train=a/{000..099} b,c.tar", "weights.alex=~/x=1,[2].pth", "data.val=auto"]
    grid = read("optim.betas=[0.5,0.9],[0.9,0.99]", *words, "name='a b,c'")
    assert grid.axes == {"optim.betas": [[0.5, 0.9], [0.9, 0.99]]}
    first, second = grid.jobs
    for job, betas in ((first, [0.5, 0.9]), (second, [0.9, 0.99])):
        assert compose("train", read_command_line(job.words)) == job.config
        assert job.config["optim"]["betas"] == betas
        assert job.config["data"]["train"] == "a/{000..099} b,c.tar"
        assert job.config["weights"]["alex"] == "~/x=1,[2].pth"
        assert job.config["name"] == "a b,c"


@pytest.mark.usefixtures("unchecked")
def test_a_list_of_sources_is_one_value() -> None:
    grid = read("data.train=[a,b]", "seed=0,1")
    assert grid.axes == {"seed": [0, 1]}
    assert [job.config["data"]["train"] for job in grid.jobs] == [["a", "b"]] * 2


@pytest.mark.usefixtures("unchecked")
def test_equal_configurations_run_once() -> None:
    # A continuous codebook has no size, and 0.10 is 0.1.
    grid = read("codebook=kl", "optim.lr=0.1,0.2,0.10,1e-1")
    assert names(grid) == ["lr0.1", "lr0.2"]
    assert grid.equal == 2
    assert grid.axes == {"optim.lr": [0.1, 0.2]}


@pytest.mark.usefixtures("unchecked")
def test_a_name_makes_no_run_another_one() -> None:
    first, second = (compose("train", read_command_line([f"name={name}"])) for name in "ab")
    assert identity(first) == identity(second)
    other = compose("train", read_command_line(["seed=1"]))
    assert identity(first) != identity(other)


@pytest.mark.usefixtures("unchecked")
def test_an_experiment_can_be_an_axis() -> None:
    words = ["experiment=vqvae_cifar10,demo", "trainer.max_steps=5"]
    grid = read(*words, sweep_dir=None)
    assert names(grid) == ["vqvae_cifar10", "demo"]
    assert [job.config["data"]["image_size"] for job in grid.jobs] == [32, 64]
    assert [job.max_steps for job in grid.jobs] == [5, 5]
    # Their names differ, and yet they are in one folder.
    assert grid.sweep_dir == Path("sweeps/vqvae_cifar10")
    assert [job.run_dir for job in grid.jobs] == [
        grid.sweep_dir / "jobs/vqvae_cifar10",
        grid.sweep_dir / "jobs/demo",
    ]


@pytest.mark.usefixtures("unchecked")
def test_without_a_folder_the_name_makes_one() -> None:
    assert read("seed=0,1", "name=mine", sweep_dir=None).sweep_dir == Path("sweeps/mine")


@pytest.mark.usefixtures("unchecked")
def test_the_codebook_of_a_group_can_be_an_axis() -> None:
    grid = read("codebook=grouped", "codebook.inner=vq,fsq")
    assert names(grid) == ["innervq", "innerfsq"]
    assert [job.config["codebook"]["inner"]["kind"] for job in grid.jobs] == ["vq", "fsq"]
    # Hydra's own way to say it.
    grid = read("codebook@codebook.inner=vq,fsq,ema", "codebook=grouped,residual")
    assert len(grid.jobs) == len(set(names(grid))) == 6
    assert grid.axes["codebook"] == ["grouped", "residual"]


@pytest.mark.usefixtures("unchecked")
def test_keys_can_be_added_and_taken_away() -> None:
    grid = read("+codebook.new=1,2", "~codebook.decay")
    assert names(grid) == ["new1", "new2"]
    assert grid.axes == {"codebook.new": [1, 2]}
    assert grid.jobs[1].words == ["+codebook.new=2", "~codebook.decay"]
    assert grid.jobs[1].config["codebook"]["new"] == 2
    assert "decay" not in grid.jobs[1].config["codebook"]
    assert read("++seed=1,2").axes == {"seed": [1, 2]}


@pytest.mark.usefixtures("unchecked")
def test_configs_of_ones_own_are_axes_too(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    for number in (1, 2):
        (tmp_path / f"experiment/mine{number}.yaml").write_text(
            f"# @package _global_\ntrainer:\n  max_steps: {number}00\n"
        )
    grid = read("experiment=glob(mine*)", f"--config-dir={tmp_path}")
    assert names(grid) == ["mine1", "mine2"]
    assert [job.max_steps for job in grid.jobs] == [100, 200]
    assert grid.jobs[0].words == ["experiment=mine1", f"--config-dir={tmp_path}"]
    assert compose("train", read_command_line(grid.jobs[0].words)) == grid.jobs[0].config


# What is refused.


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["codebook.size=16"], "name a key with several values, such as codebook.size=1024,4096"),
        ([], "name a key with several values"),
        (["seed='0,1'"], "name a key with several values"),
        (["name=a,b"], "name cannot have several values: it names the sweep"),
        (["++name=a,b"], "name cannot have several values: it names the sweep"),
        (["seed=0,1", "run_dir=x"], "run_dir is set by the sweep: leave it out, and give swee"),
        (["seed=0,1", "run_dir=[x]"], "run_dir is set by the sweep"),
        (["seed=0,1", "+run_dir=x"], "run_dir is set by the sweep"),
        (["seed=0,1", "~run_dir"], "run_dir is set by the sweep"),
        (["seed=0,1", "resume=auto"], "resume is set by the sweep"),
        (["data.train=[a],[b]"], "data.train cannot have several values: it is a path"),
        (["++weights.alex=a,b"], r"weights\.alex cannot have several values: it is a path"),
        (["seed=range(0,10001)"], "a sweep has at most 10,000 runs: give fewer values"),
        (["seed=range(0,1000000000)"], "a sweep has at most 10,000 runs"),
        (["seed=range(0,200)", "optim.lr=range(1,52)"], "a sweep has at most 10,000 runs"),
        (["codebook=ema,fqs"], "codebook=fqs: unknown codebook 'fqs'"),
        (
            ["codebook=ema,fsq", "codebook.decay=0.9,0.99"],
            "codebook=fsq codebook.decay=0.9: unknown key 'codebook.decay'",
        ),
        (["seed=0,1", "trainer.max_step=3"], "did you mean 'trainer.max_steps'"),
    ],
)
def test_mistakes_on_the_command_line_are_told(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(*words)


def test_mistakes_of_values_name_the_values(tiny: list[str]) -> None:
    words = [word for word in tiny if not word.startswith("codebook.dim")]
    with pytest.raises(ConfigError, match=r"^codebook=lfq codebook\.size=24: .*power of two") as e:
        read(*words, "codebook=vq,lfq", "codebook.size=16,24")
    assert "vq" not in str(e.value)
    with pytest.raises(
        ConfigError, match=r"^data\.image_size=18: data\.image_size=18: a sample of 18"
    ):
        read(*tiny, "data.image_size=16,18")
    with pytest.raises(ConfigError, match=r"^seed=0: trainer\.num_nodes must be 1 in a sweep"):
        read(*tiny, "seed=0,1", "trainer.num_nodes=2")
    with pytest.raises(ConfigError, match=r"^seed=x: seed must be a whole number, got 'x'"):
        read(*tiny, "seed=0,x")
    with pytest.raises(DataError, match="nowhere"):
        read(*tiny, "data.train=/nowhere", "seed=0,1")


def test_parameters_and_flops_are_those_of_each_run(tiny: list[str], monkeypatch) -> None:
    built = []
    original = Checks._build
    monkeypatch.setattr(
        Checks, "_build", lambda self, *words: (built.append(0), original(self, *words))[1]
    )
    grid = read(*tiny, "codebook.size=16,32", "seed=0,1")
    small, large = grid.jobs[0], grid.jobs[2]
    # 16 more codes of 4 channels.
    assert large.parameters - small.parameters == 16 * 4
    # The search compares each of 4 x 4 latents with 16 more codes of 4 channels.
    assert large.flops >= small.flops > 0
    assert {job.parameters for job in grid.jobs[:2]} == {small.parameters}
    # Seeds change nothing that is checked.
    assert len(built) == 2


def test_devices_are_checked_where_the_runs_will_be(tiny: list[str]) -> None:
    words = [*tiny, "trainer.accelerator=gpu", "trainer.devices=1000", "seed=0,1"]
    with pytest.raises(ConfigError, match=r"^seed=0: trainer\.(accelerator|devices)"):
        read(*words)
    assert [job.devices for job in read(*words, is_here=False).jobs] == [1000, 1000]


# Folders that exist.


@pytest.fixture
def two_seeds(unchecked, tmp_path: Path) -> Grid:
    del unchecked
    return read("seed=0,1", "codebook.size=16", sweep_dir=tmp_path)


def leave(grid: Grid, *axes: str) -> None:
    """Leave what a sweep over some keys leaves."""
    content = json.dumps({"axes": {key: [1, 2] for key in axes}})
    (grid.sweep_dir / "sweep.json").write_text(content)
    for job in grid.jobs:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        write_config(job.run_dir, job.config)


def test_the_same_sweep_goes_on_also_with_more_values(two_seeds: Grid, tmp_path: Path) -> None:
    refuse_others(two_seeds, difference)  # a new one
    leave(two_seeds, "seed")
    refuse_others(two_seeds, difference)
    more = ["seed=2,0,1", "codebook.size=16", "name=other", "data.num_workers=7"]
    refuse_others(read(*more, sweep_dir=tmp_path), difference)
    (tmp_path / "sweep.json").write_text("damaged")
    refuse_others(two_seeds, difference)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["codebook"], "holds a sweep over codebook, this one is over seed: give another sweep_d"),
        (["seed", "codebook"], "holds a sweep over seed, codebook, this one is over seed"),
    ],
)
def test_a_sweep_over_other_keys_is_refused(two_seeds: Grid, axes, message: str) -> None:
    leave(two_seeds, *axes)
    with pytest.raises(ConfigError, match=message):
        refuse_others(two_seeds, difference)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "codebook.size=32",
            r"other settings: codebook\.size \(16 -> 32\); give another sweep_dir",
        ),
        ("trainer.max_steps=7", "other settings: trainer.max_steps is 7 now; give another sweep"),
        ("optim.lr=1", r"jobs/seed0 holds a run with other settings: optim\.lr \(0\.0002 -> 1\)"),
    ],
)
def test_runs_with_other_settings_are_refused(
    two_seeds: Grid, tmp_path: Path, word: str, message: str
) -> None:
    leave(two_seeds, "seed")
    with pytest.raises(ConfigError, match=message):
        refuse_others(read("seed=0,1", "codebook.size=16", word, sweep_dir=tmp_path), difference)


def test_folders_of_runs_are_inside_the_sweep(two_seeds: Grid) -> None:
    for job, name in zip(two_seeds.jobs, name_jobs([{"seed": 0}, {"seed": 1}], []), strict=True):
        assert job.run_dir.relative_to(two_seeds.sweep_dir) == Path("jobs", name)
