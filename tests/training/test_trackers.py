"""Trackers: offline runs of the real wandb, event files read back, and a wandb that fails."""

import csv
import json
import math
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image

from vqtrain.errors import ConfigError
from vqtrain.training.trackers.base import Tracker
from vqtrain.training.trackers.build import build_tracker
from vqtrain.training.trackers.lightning import build_logger
from vqtrain.training.trackers.wandb import begin_attempt, wandb_mode

CONFIGS = Path(__file__).parents[2] / "configs/logger"
KEY = "0123456789" * 4
Build = Callable[..., Tracker | None]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working folder, and nothing of wandb in the environment."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for name in (*filter(lambda name: name.startswith("WANDB_"), os.environ), "NETRC"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def said() -> list[str]:
    """The lines that the user saw."""
    return []


@pytest.fixture
def build(tmp_path: Path, said: list[str]) -> Build:
    """Build a tracker of a kind from its yaml, with changes."""

    def build(kind: str, *, first_step: int = 0, **changes: object) -> Tracker | None:
        settings = {**yaml.safe_load((CONFIGS / f"{kind}.yaml").read_text()), **changes}
        return build_tracker(
            settings,
            logger=build_logger(settings, run_dir=tmp_path, name="a name", is_main=True),
            run_dir=tmp_path,
            name="a name",
            config={"seed": 3, "codebook": {"kind": "ema", "size": 16}},
            first_step=first_step,
            warn=said.append,
        )

    return build


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.fixture
def picture(tmp_path: Path, pixels: np.ndarray) -> Path:
    """A picture of random pixels."""
    file = tmp_path / "step_00000002.png"
    Image.fromarray(pixels).save(file)
    return file


# --- which kind


def test_none_builds_nothing_and_imports_nothing() -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from vqtrain.training.trackers.build import build_tracker;"
        "assert build_tracker({'kind': 'none'}, logger=None, run_dir=Path(), name='', config={},"
        " first_step=0, warn=print) is None;"
        "print([n for n in ('wandb', 'tensorboard') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "wandbb"}, "logger.kind: unknown kind 'wandbb', did you mean 'wandb'?"),
        ({}, "logger.kind: unknown kind 'None'"),
        ({"kind": "none", "project": "x"}, "logger: unknown key 'project'"),
        ({"kind": "tensorboard", "folder": "x"}, "logger: unknown key 'folder'"),
        ({"kind": "wandb", "project": "x"}, "logger.entity is missing"),
        ({"kind": "wandb", "project": 3, "entity": None}, "logger.project must be text, got 3"),
    ],
)
def test_a_wrong_key_is_refused(
    settings: dict[str, object], message: str, tmp_path: Path, said: list[str]
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build_tracker(
            settings,
            logger=None,
            run_dir=tmp_path,
            name="",
            config={},
            first_step=0,
            warn=said.append,
        )


@pytest.mark.parametrize("kind", ["wandb", "tensorboard"])
def test_a_package_that_is_not_installed_is_named(
    kind: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=f"pip install {kind}"):
        build(kind)


def test_a_folder_named_wandb_is_no_package(
    build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    with pytest.raises(ConfigError, match="pip install wandb"):
        build("wandb")
    assert not (tmp_path / "wandb.json").exists()


# --- Lightning's loggers


def test_csv_has_the_steps_of_the_run_and_no_images(
    build: Build, tmp_path: Path, picture: Path
) -> None:
    for version, steps in enumerate([(1, 2), (3,)]):  # the second time as in a resumed run
        tracker = build("csv")
        assert tracker is not None
        for step in steps:
            tracker.log(step, {"loss": step / 4, "val/rfid@16": math.nan})
            tracker.image(step, picture)
        tracker.close(0)
        with (tmp_path / f"csv/version_{version}/metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["step"], row["loss"]) for row in rows] == [(str(s), str(s / 4)) for s in steps]
    assert not list((tmp_path / "csv").rglob("*.png"))
    assert yaml.safe_load((tmp_path / "csv/version_0/hparams.yaml").read_text())["seed"] == 3


def test_mlflow_that_is_not_installed_is_named(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", False)
    with pytest.raises(ConfigError, match="logger=mlflow needs a package: pip install mlflow"):
        build("mlflow")


def test_mlflow_that_cannot_begin_is_one_line(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("no such server\nand more")

    monkeypatch.setattr("vqtrain.training.trackers.lightning.MLFlowLogger", refuse)
    with pytest.raises(ConfigError, match=r"^logger=mlflow cannot begin: no such server$"):
        build("mlflow")


class Notes(Logger):
    """A logger of a user, which saves in a folder."""

    name, version = "notes", 0

    def __init__(self, save_dir: str, fails: bool = False) -> None:
        super().__init__()
        self.folder, self.fails = save_dir, fails
        self.notes: list[object] = []

    def log_hyperparams(self, params: dict[str, object]) -> None:
        """Note them."""
        self.notes.append(params["seed"])

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Note them, or fail."""
        if self.fails:
            raise OSError("full")
        self.notes.append((step, metrics))

    def finalize(self, status: str) -> None:
        """Note it."""
        self.notes.append(status)


def test_a_logger_of_the_user_gets_metrics_and_a_failure_of_it_is_a_warning(
    tmp_path: Path, said: list[str]
) -> None:
    for fails in (False, True):
        settings = {"kind": f"{__name__}:Notes", "fails": fails}
        logger = build_logger(settings, run_dir=tmp_path, name="a name", is_main=True)
        other = build_logger(settings, run_dir=tmp_path, name="a name", is_main=False)
        assert isinstance(other, DummyLogger)
        assert isinstance(logger, Notes)
        assert logger.folder == str(tmp_path)
        tracker = build_tracker(
            settings,
            logger=logger,
            run_dir=tmp_path,
            name="a name",
            config={"seed": 3},
            first_step=0,
            warn=said.append,
        )
        assert tracker is not None
        tracker.log(1, {"loss": 0.5})
        tracker.close(1)
        assert logger.notes == [3, "failed"] if fails else [3, (1, {"loss": 0.5}), "failed"]
    assert said == [
        "warning: Notes failed, the run continues and metrics.jsonl holds its metrics: full"
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "pathlib:Path"}, "logger.kind: pathlib:Path must inherit from lightning."),
        ({"kind": "nowhere:Logger"}, "logger.kind: cannot import 'nowhere:Logger'"),
        ({"kind": f"{__name__}:Notes", "folder": "x"}, "logger: unknown key 'folder'"),
    ],
)
def test_a_wrong_logger_of_the_user_is_refused(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build_logger(settings, run_dir=tmp_path, name="", is_main=True)


# --- the real wandb, offline

SCRIPT = """
import socket, sys
connect, seen = socket.socket.connect, []
def noting(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
        seen.append(address)
    return connect(self, address)
socket.socket.connect = noting

from pathlib import Path
import yaml
from vqtrain.training.trackers.build import build_tracker
config, run_dir, picture = (Path(word) for word in sys.argv[1:])
tracker = build_tracker(
    yaml.safe_load(config.read_text()), logger=None, run_dir=run_dir, name="a name",
    config={"seed": 3, "codebook": {"kind": "ema", "size": 16}}, first_step=0,
    warn=lambda line: print(line, flush=True),
)
tracker.log(1, {"train/generator/total": 0.5, "train/codebook/usage": float("nan")})
tracker.log(2, {"train/generator/total": 0.25})
tracker.image(2, picture)
tracker.close(0)
assert seen == [], seen
"""


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A server that nobody should call."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def run_offline(
    tmp_path: Path, home: Path, picture: Path, server: socket.socket
) -> Callable[..., tuple[str, list[Path]]]:
    """Track two steps in a process of its own; give back its output and all offline runs."""

    def run(**environment: str) -> tuple[str, list[Path]]:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, CONFIGS / "wandb.yaml", tmp_path, picture],
            env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_BASE_URL": url, **environment},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        # Of wandb's own process, too, which sends from outside Python.
        with pytest.raises(BlockingIOError):
            server.accept()
        return done.stdout, sorted((tmp_path / "wandb").glob("*run-*"))

    return run


def stored(offline_run: Path) -> list:
    """Read an offline run's records: a header of 7 bytes, then blocks as in LevelDB's logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = offline_run.glob("*.wandb")
    content, position, records = file.read_bytes(), 7, []
    assert content[:4] == b":W&B"
    assert len(content) < 2**15  # one block, thus no record is in parts
    while position < len(content):
        _, length, _ = struct.unpack("<IHB", content[position : position + 7])
        records.append(Record.FromString(content[position + 7 : position + 7 + length]))
        position += 7 + length
    return records


def plain(items: object) -> dict[str, object]:
    """Give key-value records as a mapping."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_wandb_keeps_offline_attempts_as_one_group_and_connects_to_nothing(
    run_offline: Callable[..., tuple[str, list[Path]]], tmp_path: Path, pixels: np.ndarray
) -> None:
    said, runs = run_offline(WANDB_MODE="offline")
    assert len(runs) == 1
    assert said == f"wandb is offline; send the run with: wandb sync {runs[0]}\n"
    records = stored(runs[0])
    (run,) = [record.run for record in records if record.HasField("run")]
    known = json.loads((tmp_path / "wandb.json").read_text())
    assert known["attempts"] == 1
    assert run.run_group == known["id"]
    assert (run.run_id, run.project) == (f"{known['id']}-a1", "vqtrain")
    assert run.display_name == "a name"
    config = plain(run.config.update)
    assert config["seed"] == 3
    assert config["codebook"] == {"kind": "ema", "size": 16}
    history = [plain(record.history.item) for record in records if record.HasField("history")]
    assert [row["step"] for row in history] == [1, 2, 2]
    assert [row.get("train/generator/total") for row in history] == [0.5, 0.25, None]
    assert math.isnan(float(history[0]["train/codebook/usage"]))
    metrics = [record.metric for record in records if record.HasField("metric")]
    assert [(metric.name, metric.glob_name, metric.step_metric) for metric in metrics] == [
        ("step", "", ""),
        ("", "*", "step"),
    ]
    image = runs[0] / "files" / history[2]["val/reconstructions.path"]
    assert np.array_equal(np.asarray(Image.open(image)), pixels)
    assert not (runs[0] / "files/output.log").exists()  # what the screen said
    # Nobody is logged in, so that it is offline without being told; and a second attempt.
    said, runs = run_offline()
    assert len(runs) == 2
    (again,) = [record.run for record in stored(runs[1]) if record.HasField("run")]
    assert again.run_group == known["id"]
    assert again.run_id == f"{known['id']}-a2"


def test_wandb_is_silent_where_it_is_disabled(
    run_offline: Callable[..., tuple[str, list[Path]]],
) -> None:
    assert run_offline(WANDB_MODE="disabled") == ("", [])


# --- a wandb that can be told to fail


class FakeRun(SimpleNamespace):
    """What ``init`` returns."""


class FakeWandb(ModuleType):
    """Stands in for the package, and notes what it is told."""

    Settings = SimpleNamespace
    Run = FakeRun

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict] = []
        self.rows: list[dict] = []
        self.exit_codes: list[int] = []
        self.fails_online = self.fails_offline = self.fails_later = False
        self.torn_down = 0
        self.Error = RuntimeError

    def setup(self, settings: SimpleNamespace) -> SimpleNamespace:
        """Note the settings that hold from now on."""
        self.set_up = settings
        mode = os.environ.get("WANDB_MODE", "online")
        return SimpleNamespace(settings=SimpleNamespace(mode=mode))

    def login(self, *, prompt: bool, verify: bool) -> bool:
        """Say whether there is a key, without asking for one or for a server."""
        assert (prompt, verify) == (False, False)
        return bool(os.environ.get("WANDB_API_KEY"))

    def teardown(self) -> None:
        """Count how often it was told to stop."""
        self.torn_down += 1
        if self.fails_later:
            raise SystemExit(1)  # as wandb does

    def init(self, **arguments: object) -> FakeRun:
        """Begin a run, or fail."""
        self.begun.append(arguments)
        mode = arguments["settings"].mode
        assert mode == self.set_up.mode
        if getattr(self, f"fails_{mode}"):
            raise RuntimeError(f"no {mode}\nand more")
        return FakeRun(
            define_metric=lambda *_, **__: None,
            log=self.log,
            finish=lambda *, exit_code: self.exit_codes.append(exit_code),
            url="https://wandb.ai/run",
            dir="run/files",
        )

    def log(self, row: dict) -> None:
        """Take a row, or fail."""
        if self.fails_later:
            raise BrokenPipeError("wandb-core is gone\nand more")
        self.rows.append(row)

    def Image(self, pixels: np.ndarray) -> SimpleNamespace:  # noqa: N802  # wandb's name
        """Wrap pixels."""
        return SimpleNamespace(pixels=pixels)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_online_attempts_go_on_with_one_run(
    build: Build, fake: FakeWandb, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    build("wandb", entity="us")
    build("wandb", entity="us", first_step=2)
    first, second = fake.begun
    assert first["settings"].mode == "online"
    assert (first["settings"].silent, first["settings"].console) == (True, "off")
    assert first["id"] == first["group"] == second["id"] == second["group"]
    assert first["resume"] == second["resume"] == "allow"
    assert (first["project"], first["entity"], first["name"]) == ("vqtrain", "us", "a name")
    assert first["dir"] == str(tmp_path)
    assert said == ["wandb: https://wandb.ai/run"] * 2
    assert json.loads((tmp_path / "wandb.json").read_text())["attempts"] == 2


def test_a_group_holds_runs_together(
    build: Build, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    build("wandb", group="sizes")
    (begun,) = fake.begun
    assert begun["group"] == "sizes"
    assert begun["id"] != "sizes"


def test_without_its_server_wandb_goes_offline(
    build: Build, fake: FakeWandb, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    fake.fails_online = True
    assert build("wandb") is not None
    online, offline = fake.begun
    assert (online["id"], online["resume"]) == (online["group"], "allow")
    assert (offline["id"], offline["resume"]) == (f"{online['group']}-a1", None)
    assert offline["group"] == online["group"]
    assert fake.torn_down == 1
    assert said == [
        "warning: wandb is offline, its server cannot be used: no online",
        "wandb is offline; send the run with: wandb sync run",
    ]


def test_a_wandb_that_was_asked_to_be_online_must_be(
    build: Build, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "online")
    fake.fails_online = True
    with pytest.raises(ConfigError, match=r"^logger=wandb cannot begin: no online$"):
        build("wandb")


@pytest.mark.parametrize("key", ["", KEY])
def test_a_wandb_that_fails_offline_too_is_one_line(
    key: str, build: Build, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    fake.fails_online = fake.fails_offline = True
    with pytest.raises(ConfigError, match=r"^logger=wandb cannot begin: no offline$"):
        build("wandb")


def test_a_failure_in_mid_run_is_one_warning(
    build: Build, fake: FakeWandb, said: list[str], picture: Path, pixels: np.ndarray
) -> None:
    tracker = build("wandb")
    assert tracker is not None
    said.clear()
    fake.fails_later = True
    tracker.log(1, {"loss": 1.0})
    tracker.image(1, picture)
    expected = "the run continues and metrics.jsonl holds its metrics: wandb-core is gone"
    assert said == [f"warning: wandb failed, {expected}"]
    fake.fails_later = False  # it may come back
    tracker.log(2, {"loss": 0.5})
    tracker.image(2, picture)
    tracker.image(3, picture.with_name("absent.png"))
    tracker.close(143)
    assert fake.rows[0] == {"step": 2, "loss": 0.5}
    assert fake.rows[1]["step"] == 2
    assert np.array_equal(fake.rows[1]["val/reconstructions"].pixels, pixels)
    assert len(fake.rows) == 2
    assert (fake.exit_codes, fake.torn_down) == ([143], 1)
    fake.fails_later = True
    tracker.close(143)
    assert fake.torn_down == 2
    assert len(said) == 1


def test_a_signal_is_not_swallowed(
    build: Build, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(row: object) -> None:
        raise KeyboardInterrupt(row)

    monkeypatch.setattr(fake, "log", interrupt)
    tracker = build("wandb")
    assert tracker is not None
    with pytest.raises(KeyboardInterrupt):
        tracker.log(1, {"loss": 1.0})


# --- which mode


def mode_here() -> str:
    """Ask as a process would that has not used wandb yet."""
    import wandb
    from wandb.sdk.lib.wbauth import unauthenticate_session

    wandb.teardown()
    unauthenticate_session(update_settings=False)
    try:
        return wandb_mode()
    finally:
        wandb.teardown()


def test_wandb_is_online_only_if_somebody_is_logged_in(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mode_here() == "offline"
    (home / ".netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert mode_here() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example:8080")  # another server
    assert mode_here() == "offline"
    (home / ".netrc").write_text(f"machine wandb.example:8080 login user password {KEY}\n")
    assert mode_here() == "online"
    monkeypatch.setenv("NETRC", str(home / "other"))
    assert mode_here() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert mode_here() == "online"


def test_a_damaged_netrc_logs_nobody_in(home: Path) -> None:
    (home / ".netrc").write_text("machinery\n")
    assert mode_here() == "offline"


def test_settings_files_are_heeded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = home / ".config/wandb/settings"
    system.parent.mkdir(parents=True)
    system.write_text(f"[default]\napi_key = {KEY}\n")
    assert mode_here() == "online"
    here = home / "wandb/settings"
    here.parent.mkdir()
    here.write_text("[default]\nmode = offline\n")  # the command wandb offline
    assert mode_here() == "offline"
    here.write_text("[default]\nmode = disabled\n")
    assert mode_here() == "disabled"
    here.write_text("no section")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home / "elsewhere"))
    assert mode_here() == "offline"


@pytest.mark.parametrize(
    ("word", "mode"),
    [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled"), ("run", "online")],
)
def test_the_environment_decides(word: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", word)
    assert mode_here() == mode


def test_a_malformed_key_logs_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert mode_here() == "offline"


def test_a_mode_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(ConfigError, match="unknown mode 'ofline', did you mean 'offline'"):
        mode_here()
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match="WANDB_MODE=online, but nobody is logged in"):
        mode_here()


def test_attempts_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "wandb.json"
    run_id, attempt = begin_attempt(file)
    assert attempt == 1
    assert re.fullmatch("[0-9a-f]{8}", run_id)
    assert begin_attempt(file) == (run_id, 2)
    assert [path.name for path in tmp_path.glob("*wandb*")] == ["wandb.json"]
    assert begin_attempt(tmp_path / "other.json")[0] != run_id
    file.write_text('{"id": "x"}')
    with pytest.raises(ConfigError, match=r"wandb\.json is damaged: delete it"):
        begin_attempt(file)


# --- TensorBoard


def test_tensorboard_shows_metrics_pictures_and_config(
    build: Build, tmp_path: Path, picture: Path, pixels: np.ndarray
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    gray = tmp_path / "gray.png"
    Image.fromarray(pixels[..., 0]).save(gray)
    tracker = build("tensorboard")
    assert tracker is not None
    for step in (1, 2, 3, 4):
        tracker.log(step, {"loss": float(step), "usage": math.nan})
    tracker.image(2, picture)
    tracker.image(4, gray)
    tracker.close(0)
    resumed = build("tensorboard", first_step=3)  # 4 is made again
    assert resumed is not None
    resumed.log(4, {"loss": 40.0})
    resumed.image(4, gray)
    resumed.close(0)
    seen = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True)
    seen.Reload()
    losses = [(event.step, event.value) for event in seen.Scalars("loss")]
    assert losses == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert all(math.isnan(event.value) for event in seen.Scalars("usage"))
    images = seen.Images("val/reconstructions")
    assert [(image.step, image.width, image.height) for image in images] == [(2, 6, 4), (4, 6, 4)]
    text = seen.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert yaml.safe_load(text)["codebook"] == {"kind": "ema", "size": 16}
    assert all(line.startswith("    ") for line in text.splitlines())


def test_a_tensorboard_that_cannot_write_is_said_at_the_start_or_warned_of_later(
    build: Build, tmp_path: Path, said: list[str], picture: Path
) -> None:
    tracker = build("tensorboard")
    assert tracker is not None
    tracker.image(1, picture.with_name("absent.png"))
    tracker.image(2, picture.with_name("absent.png"))
    tracker.close(1)
    assert len(said) == 1
    assert said[0].startswith("warning: tensorboard failed, the run continues")
    for file in (tmp_path / "tensorboard").iterdir():
        file.unlink()
    (tmp_path / "tensorboard").rmdir()
    (tmp_path / "tensorboard").touch()
    with pytest.raises(ConfigError, match="logger=tensorboard cannot begin"):
        build("tensorboard")
