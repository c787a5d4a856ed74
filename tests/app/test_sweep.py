"""``vqtrain sweep`` as its users meet it."""

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

from vqtrain import Tokenizer
from vqtrain.cli import main
from vqtrain.generation.results import EntropyResult, ProbeReport, TokenizerProbe, write_probe
from vqtrain.launchers.base import Done, Ended, Job

RunCommand = Callable[..., subprocess.CompletedProcess[str]]

# A codebook that tells what each rank was given.
PROBE = """
import inspect, os
from pathlib import Path
from vqtrain.codebooks.vq import VQ

class Probe(VQ):
    __signature__ = inspect.signature(VQ)

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.told = Path(os.environ["PROBE"])

    __init__.__annotations__ = VQ.__init__.__annotations__

    def forward(self, z):
        if self.training:
            rank = os.environ.get("LOCAL_RANK", "0")
            (self.told / f"size{self.size}_rank{rank}").touch()
        return super().forward(z)
"""


def results(folder: str | Path = "sweep") -> dict[str, dict[str, object]]:
    """Read the runs of a sweep by their names."""
    found = json.loads(Path(folder, "sweep.json").read_text())
    return {job["name"]: job for job in found["jobs"]}


def states(folder: str | Path = "sweep") -> dict[str, str]:
    return {name: str(job["state"]) for name, job in results(folder).items()}


def attempts(run_dir: Path) -> int:
    """Count how often a run has begun or gone on."""
    return (run_dir / "log.txt").read_text().count("run directory: ")


def steps(run_dir: Path) -> list[int]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def process_of(cwd: Path, run_dir: str) -> int | None:
    """Find the process that trains into a run directory, but none of its children."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            is_here = (folder / "cwd").readlink() == cwd
        except (OSError, UnicodeDecodeError):
            continue
        is_child = "vqtrain.launchers.parts.child" in words
        if is_here and is_child and f"run_dir={run_dir}" in words:
            return int(folder.name)
    return None


def wait_until(holds: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_failure_a_kill_and_an_interruption_cost_no_run_twice(
    vqtrain: RunCommand,
    start_vqtrain: Callable[..., subprocess.Popen[str]],
    tiny: list[str],
    tmp_path: Path,
) -> None:
    rates = ["0.001", "1e30", "0.002", "0.003", "0.004"]
    words = [
        *("sweep", *tiny, f"optim.lr={','.join(rates)}", "sweep_dir=sweep", "devices=2"),
        *("trainer.max_steps=120", "trainer.checkpoint_every=10", "trainer.validate_every=60"),
        *("optim.schedule=constant", "trainer.clip=null", "metrics.names=[psnr]"),
    ]
    jobs = tmp_path / "sweep/jobs"
    sweep = start_vqtrain(*words)
    # One is killed once it has a checkpoint, and the sweep while the one after it trains.
    killed, stopped = "lr0.001", "lr0.003"
    wait_until(lambda: list((jobs / killed / "checkpoints").glob("step_*")))
    number = process_of(tmp_path, f"sweep/jobs/{killed}")
    assert number is not None
    os.kill(number, signal.SIGKILL)
    wait_until(lambda: list((jobs / stopped / "checkpoints").glob("step_*")))
    sweep.send_signal(signal.SIGINT)
    printed, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 130, errors
    assert "stopped: run the same command again to continue\n" in printed
    assert "lr0.001 interrupted: killed by SIGKILL\n" in printed
    before = states(tmp_path / "sweep")
    assert before["lr0.001"] == before["lr0.003"] == "interrupted"
    assert before["lr1e+30"] == "failed"
    assert process_of(tmp_path, f"sweep/jobs/{stopped}") is None
    begun = {folder.name for folder in jobs.iterdir() if (folder / "log.txt").exists()}
    trained = {name for name in begun if (jobs / name / "checkpoints/step_00000120.ckpt").exists()}
    assert not trained.intersection((killed, stopped))
    done = vqtrain(*words)
    assert done.returncode == 1, done.stderr
    found = results(tmp_path / "sweep")
    assert {name: job["state"] for name, job in found.items()} == {
        "lr0.001": "finished",
        "lr1e+30": "failed",
        **{f"lr{rate}": "finished" for rate in rates[2:]},
    }
    assert found["lr1e+30"]["code"] == 1
    assert "20 steps in a row had a loss or a gradient that is not finite" in str(
        found["lr1e+30"]["reason"]
    )
    assert "failed      lr1e+30: 20 steps in a row" in done.stdout
    for name in found:
        goes_on = name in begun and name not in (*trained, "lr1e+30")
        assert attempts(jobs / name) == 1 + goes_on, name
        # Each step once: those that went on did so at their checkpoint.
        assert len(steps(jobs / name)) == len(set(steps(jobs / name)))
    last = vqtrain(*words)
    assert last.returncode == 1
    assert "done        4, not run again\nfailed      1, not run again\n" in last.stdout


@pytest.mark.ddp
def test_every_rank_sees_the_values_of_its_own_run(
    vqtrain: RunCommand, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "told").mkdir()
    (tmp_path / "probe.py").write_text(PROBE)
    words = [word for word in tiny if word != "codebook.size=16"]
    done = vqtrain(
        *("sweep", *words, "codebook=vq", "codebook.kind=probe:Probe", "codebook.size=8,16"),
        *("trainer.devices=2", "devices=4", "sweep_dir=sweep"),
        variables={"PROBE": str(tmp_path / "told")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "told").iterdir()) == [
        *("size16_rank0", "size16_rank1", "size8_rank0", "size8_rank1")
    ]
    for name, size in (("size8", 8), ("size16", 16)):
        config = json.loads((tmp_path / f"sweep/jobs/{name}/tokenizer/config.json").read_text())
        assert config["codebook"]["arguments"]["size"] == size
    made = {"__pycache__", "probe.py", "sweep", "told"}  # the first by Python, if at all
    assert {path.name for path in tmp_path.iterdir()} | {"__pycache__"} == made


@pytest.fixture
def swept(
    start_vqtrain: Callable[..., subprocess.Popen[str]], tiny: list[str], tmp_path: Path
) -> dict[str, tuple[list[str], str]]:
    """Sweep on this machine and on two clusters; the words of each and what it has printed.

    A cluster has one run of these, which are equal: what Ray starts is new, and takes its time.
    """
    words = [word for word in tiny if word != "codebook.size=16"]
    on_slurm = ["launcher=slurm", "launcher_options={cluster: debug, gpus: 0}"]
    places = {
        "here": ["codebook=vq,ema", "codebook.size=8,16", "devices=2"],
        "ray": ["codebook=vq", "codebook.size=8,8", "launcher=ray"],
        "slurm": ["codebook=vq", "codebook.size=16,16", *on_slurm],
    }
    typed = {name: ["sweep", *place, *words, f"sweep_dir={name}"] for name, place in places.items()}
    started = {name: start_vqtrain(*each) for name, each in typed.items()}
    printed = {}
    for name, process in started.items():
        printed[name], errors = process.communicate(timeout=300)
        assert process.returncode == 0, printed[name] + errors
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(places)  # and nothing else
    return {name: (typed[name], printed[name]) for name in places}


@pytest.mark.slow
def test_a_grid_becomes_runs_a_table_and_a_picture_and_clusters_give_the_same(
    swept: dict[str, tuple[list[str], str]], vqtrain: RunCommand, tmp_path: Path
) -> None:
    words, printed = swept["here"]
    assert "runs        4: 2 codebook x 2 codebook.size\n" in printed
    folder = tmp_path / "here"
    names = ["vq_size8", "vq_size16", "ema_size8", "ema_size16"]
    own = results(folder)
    assert list(own) == names
    for name in names:
        job = own[name]
        evaluation = json.loads((folder / "jobs" / name / "evaluation/evaluation.json").read_text())
        (entry,) = evaluation["tokenizers"]
        assert job["metrics"] == entry["metrics"]
        assert job["bits_per_pixel"] == entry["bits_per_pixel"]
        assert (folder / "jobs" / name / "tokenizer/model.safetensors").exists()
    vq = Tokenizer.from_pretrained(folder / "jobs/vq_size8")
    assert own["vq_size8"]["parameters"] == sum(each.numel() for each in vq.parameters())
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert [row["codebook.size"] for row in rows] == ["8", "16", "8", "16"]
    assert [float(row["psnr"]) for row in rows] == [job["metrics"]["psnr"] for job in own.values()]  # type: ignore[index]  # plain data
    assert parquet.read_table(folder / "sweep.parquet").column("name").to_pylist() == names
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (folder / "sweep.html").read_text()

    kept = ("state", "metrics", "codebook", "bits_per_pixel")
    for cluster, job in (("ray", "size8"), ("slurm", "size16")):
        found, same = results(tmp_path / cluster), own[f"vq_{job}"]
        assert list(found) == [job]
        assert {key: found[job][key] for key in kept} == {key: same[key] for key in kept}
        here, there = (
            Tokenizer.from_pretrained(run).state_dict()
            for run in (folder / f"jobs/vq_{job}", tmp_path / cluster / "jobs" / job)
        )
        assert all(torch.equal(here[key], there[key]) for key in here)

    again = vqtrain(*words)
    assert again.returncode == 0
    assert "done        4, not run again\n" in again.stdout
    assert [attempts(folder / "jobs" / name) for name in names] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["codebook=lfq", "codebook.size=16,20"],
            "codebook.size=20: codebook=lfq: codebook.size",
        ),
        (["codebook.size=16"], "name a key with several values"),
        (["codebook=vq,fq"], "unknown codebook 'fq', did you mean 'lfq'?"),
        (["optim.lr=interval(0,1)"], "has no end of values: list them"),
        (["seed=0,1", "run_dir=here"], "run_dir is set by the sweep"),
        (["seed=0,1", "resume=auto"], "resume is set by the sweep"),
        (["name=a,b"], "name cannot have several values"),
        (["seed=0,1", "data.train=nowhere"], "data.train: nowhere does not exist"),
        (["seed=0,1", "launcher=ry"], "unknown kind 'ry', did you mean 'ray'?"),
        (["seed=0,1", "devices=0"], "devices must be at least 1 or null, got 0"),
        (["seed=0,1", "launcher=ray", "devices=2"], "devices=2 is for this machine"),
        (["seed=0,1", "launcher_options={a: 1}"], "launcher=local takes no launcher_options"),
        (["seed=0,1", "probe=entropi"], "got ['entropi']; did you mean entropy?"),
        (["seed=0,1", "probe=samples"], "probe=samples draws from the transformer"),
        (["seed=0,1", "probe=entropy", "probe_options.sed=1"], "unknown key 'sed', did you mean"),
        (["seed=0,1", "probe=entropy", "probe_options.seed=-1"], "seed must be at least 0"),
        (["seed=0,1", "probe=entropy", "probe_options.out=x"], "probe_options.out is set by the"),
        (["seed=0,1", "probe_options.seed=1"], "probe_options without probe"),
        (
            ["seed=0,1", "probe_options=3", "probe_options.a=1"],
            "probe_options is 3, and has no",
        ),
        (["seed=0,1", "trainer.num_nodes=2"], "trainer.num_nodes must be 1 in a sweep"),
        (["seed=0,1", "sweep_dri=x"], "unknown key 'sweep_dri'"),
        (["seed=0,1", "init_from=nowhere"], "nowhere"),
        (["seed=0,1", "sweep_dir=file/below"], "cannot write file/below: Not a directory"),
        (["seed=0,1", "sweep_dir=file"], "sweep_dir=file is a file"),
        (["seed=0,1", "sweep_dir="], "sweep_dir must name a folder, got nothing"),
        (["seed=0,1", "sweepdir=x"], "unknown key 'sweepdir', did you mean 'sweep_dir'?"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    known = [word for word in tiny if word != "codebook.dim=4"]  # which lfq does not have
    assert main(["sweep", *known, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vqtrain: ")
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("end", "state", "is_kept"),
    [
        (Ended(code=1, reason="no memory left"), "failed", True),
        (Ended(code=2, reason="no GPU there"), "failed", True),
        (Ended(code=137, reason="killed by SIGKILL"), "interrupted", False),
        (Ended(code=143, reason="it was told to"), "interrupted", False),
        (Ended(code=0, reason=""), "interrupted", False),  # out of trainer.max_time
    ],
)
def test_what_failed_stays_so_and_what_was_cut_off_goes_on(
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: Ended,
    state: str,
    is_kept: bool,
) -> None:
    launched: list[list[str]] = []

    def launch(_self: object, jobs: list[Job], *, done: Done, **_options: object) -> None:
        launched.append([job.name for job in jobs])
        for job in jobs[:1]:
            done(job, end)

    monkeypatch.setattr("vqtrain.launchers.local.Local.launch", launch)
    monkeypatch.chdir(tmp_path)
    words = ["sweep", *tiny, "seed=0,1", "sweep_dir=sweep"]
    assert main(words) == 1
    printed = capsys.readouterr().out
    assert states() == {"seed0": state, "seed1": "waiting"}
    assert results()["seed0"]["code"] == end.code
    reason = end.reason or "trainer.max_time is over"
    assert f"{state:<12}seed0: {reason}" in printed
    failure = Path("sweep/jobs/seed0/failed.json")
    assert failure.exists() == is_kept
    assert main(words) == 1
    failure.unlink(missing_ok=True)  # which lets it try again
    assert main(words) == 1
    both = ["seed0", "seed1"]
    assert launched == ([both, ["seed1"], ["seed0"]] if is_kept else [both, both, both])


def evaluate(out: Path) -> None:
    """Write what an evaluation writes, in short."""
    out.mkdir(parents=True, exist_ok=True)
    found = {"image_size": 16, "tokens_per_image": 16, "bits_per_pixel": 0.25}
    entry = {**found, "metrics": {"psnr": 20.0}}
    (out / "evaluation.json").write_text(json.dumps({"tokenizers": [entry]}))


def probe(out: Path) -> None:
    """Write what a probe writes, in short."""
    bits = {"context": 0.125}
    found = TokenizerProbe(
        name="run",
        path="run",
        kind="vq",
        size=16,
        num_codebooks=1,
        token_shape=[4, 4],
        image_size=16,
        tokens_per_image=16,
        bits_per_pixel=0.25,
        entropy=EntropyResult(bits_per_token=bits, bits_per_pixel=bits, seconds=1.0),
    )
    settings = {"seed": 0, "batch_size": 4}
    out.mkdir(parents=True, exist_ok=True)
    write_probe(ProbeReport(images={}, settings=settings, tokenizers=[found]), out)


def test_a_sweep_that_is_run_again_with_a_probe_only_probes(
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    launched: list[list[str]] = []
    write = {"evaluate": evaluate, "probe": probe}
    ends = {"": Ended(code=0, reason="")}

    def launch(_self: object, jobs: list[Job], *, done: Done, **_options: object) -> None:
        for job in jobs:
            launched.append([job.name, *(words[0] for words in job.commands)])
            end = ends.get(job.commands[-1][0], ends[""])
            for words in job.commands:
                out = next((Path(w[4:]) for w in words if w.startswith("out=")), None)
                if out is not None and (end.code == 0 or words[0] == "evaluate"):
                    write[words[0]](out)
                elif out is not None:  # it ends before it has found anything
                    out.mkdir(parents=True, exist_ok=True)
                    (out / "begun").touch()
            done(job, end)

    monkeypatch.setattr("vqtrain.launchers.local.Local.launch", launch)
    monkeypatch.setattr("vqtrain.app.parts.sweep.has_trained", lambda job: job.evaluation.exists())
    known = [word for word in tiny if not word.startswith("codebook")]
    words = ["sweep", *known, "codebook=fsq,kl", "sweep_dir=sweep"]
    assert main([*words, "probe=entropy", "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    both = ["train", "evaluate"]
    assert [line.split()[1] for line in lines] == [*both, "probe", *both]
    assert main(words) == 0
    assert launched == [["fsq", *both], ["kl", *both]]
    launched.clear()
    assert main(words) == 0
    assert launched == []

    wanted = [*words, "probe=entropy", "probe_options.batch_size=4"]
    ends["probe"] = Ended(code=130, reason="Ctrl-C")
    assert main(wanted) == 1
    printed = capsys.readouterr().out
    assert "not probed  kl: a continuous codebook has no ids\n" in printed
    assert "fsq interrupted: Ctrl-C\n" in printed
    assert launched == [["fsq", "probe"]]
    assert states() == {"fsq": "interrupted", "kl": "finished"}
    assert results()["fsq"]["metrics"] == {"psnr": 20.0}

    del ends["probe"]
    assert main(wanted) == 0
    assert Path("sweep/jobs/fsq/probe/begun").exists()
    assert launched == [["fsq", "probe"]] * 2
    assert results()["fsq"]["probe"] == {"entropy_bits_per_pixel": 0.125}
    assert "entropy_bits_per_pixel 0.1250" in capsys.readouterr().out
    assert main(wanted) == 0
    assert launched == [["fsq", "probe"]] * 2
    assert main([*words, "probe=entropy", "probe_options.batch_size=8"]) == 2
    assert "sweep/jobs/fsq/probe holds a probe with batch_size=4, not 8" in capsys.readouterr().err
    # Also where a key is left out that was another value before.
    file = Path("sweep/jobs/fsq/probe/probe.json")
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    assert main(wanted) == 2
    assert "holds a probe with seed=1, not 0: give another sweep_dir" in capsys.readouterr().err
    file.write_text(file.read_text().replace('"seed": 1', '"seed": 0'))

    ends["probe"] = Ended(code=1, reason="no memory left")
    assert main([*words, "probe=entropy,transformer"]) == 1
    assert launched == [["fsq", "probe"]] * 3
    assert states() == {"fsq": "failed", "kl": "finished"}
    assert Path("sweep/jobs/fsq/failed.json").exists()


def test_the_command_lines_of_all_runs_are_shown(
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *tiny, "seed=0,1", "name=mine", "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["train", "evaluate"] * 2
    for line, seed in zip(lines[::2], (0, 1), strict=True):
        assert f" seed={seed} " in line
        assert line.endswith(
            f"'name=\"seed{seed}\"' run_dir=sweeps/mine/jobs/seed{seed} resume=auto"
        )
    assert "tokenizer=sweeps/mine/jobs/seed0 out=sweeps/mine/jobs/seed0/evaluation" in lines[1]
    assert not any(tmp_path.iterdir())


def test_a_file_where_a_run_should_be_is_said_before_anything_runs(
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep/jobs").mkdir(parents=True)
    Path("sweep/jobs/seed1").touch()
    assert main(["sweep", *tiny, "seed=0,1", "sweep_dir=sweep"]) == 2
    assert "sweep/jobs/seed1 is a file" in capsys.readouterr().err
    assert [path.name for path in Path("sweep/jobs").iterdir()] == ["seed1"]


def test_help_shows_keys_groups_and_two_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--help"]) == 0
    printed = capsys.readouterr().out
    for word in ("sweep_dir", "launcher", "codebook.size", "discriminator "):
        assert f"  {word}" in printed
    assert printed.count("\n  vqtrain sweep ") == 2
