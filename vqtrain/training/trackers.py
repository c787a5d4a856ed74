"""Where metrics and pictures go besides the run directory: Weights & Biases, or TensorBoard.

Neither package is imported before it is asked for, and a failure of one never ends a run.
"""

import configparser
import json
import netrc
import os
import secrets
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import final
from urllib.parse import urlsplit

import numpy as np
import yaml
from PIL import Image

from vqtrain.build import bind, unknown
from vqtrain.errors import ConfigError

KINDS = ("none", "wandb", "tensorboard")
PICTURES = "val/reconstructions"

# What wandb waits for its server: 90 s and without end if it is not told.
INIT_TIMEOUT_S, FINISH_TIMEOUT_S = 30.0, 60.0
WANDB_MODES = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


class Tracker(AbstractContextManager["Tracker", None], ABC):
    """A place for metrics and pictures, on global rank 0 only; it closes as a context ends."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; the run went well if there is no error."""
        del kind, trace
        self.close(0 if error is None else 1)

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics of a step."""

    @abstractmethod
    def picture(self, step: int, file: Path) -> None:
        """Take a PNG of originals above reconstructions."""

    @abstractmethod
    def close(self, exit_code: int) -> None:
        """Write what is left, and say whether the run went well: 0 if it did."""


@dataclass(frozen=True, kw_only=True)
class WandbSettings:
    """The keys of ``logger=wandb``.

    Attributes:
        project: Where the run is listed.
        entity: A user or a team; None for the account's default.
        group: Holds runs together there; None for one of this run and its attempts alone.
    """

    project: str
    entity: str | None
    group: str | None


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The keys of a logger that has none."""


def build_tracker(
    settings: Mapping[str, object],
    *,
    run_dir: Path,
    name: str,
    config: Mapping[str, object],
    first_step: int,
    warn: Callable[[str], None],
) -> Tracker | None:
    """Build what the ``logger`` group describes; on global rank 0 only.

    Args:
        settings: The group, as plain data.
        run_dir: The run directory; it exists.
        name: The run's name.
        config: The whole configuration, as plain data.
        first_step: 0, or the step that a resumed run goes on from.
        warn: Shows a line to the user.

    Raises:
        ConfigError: If a key is unknown or wrong, the package is not here, or it cannot begin.
    """
    keys = dict(settings)
    kind = keys.pop("kind", None)
    if kind == "wandb":
        return WandbTracker(
            settings=bind(WandbSettings, keys, where="logger"),
            run_dir=run_dir,
            name=name,
            config=config,
            warn=warn,
        )
    if kind not in KINDS:
        raise ConfigError(f"logger.kind: {unknown('kind', str(kind), KINDS)}")
    bind(NoSettings, keys, where="logger")
    if kind == "none":
        return None
    return TensorboardTracker(
        folder=run_dir / "tensorboard", config=config, first_step=first_step, warn=warn
    )


@final
class Leniency:
    """Gives contexts that turn the first error within them into a warning, and hide the others.

    Args:
        name: What may fail.
        warn: Shows a line to the user.
    """

    def __init__(self, *, name: str, warn: Callable[[str], None]) -> None:
        self.name, self.warn = name, warn
        self.has_warned = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Swallow an error, and wandb's way to end the process, but no signal."""
        try:
            yield
        except (Exception, SystemExit) as error:
            if not self.has_warned:
                self.has_warned = True
                self.warn(
                    f"warning: {self.name} failed, the run goes on and metrics.jsonl holds its "
                    f"metrics: {first_line(error)}"
                )


@final
class WandbTracker(Tracker):
    """Sends a run to Weights & Biases, or keeps it in ``run_dir/wandb`` for ``wandb sync``.

    Offline runs with one id would overwrite each other as they are synced, so that each attempt
    has an id of its own there; a group holds them together. Pictures are passed as uint8: of
    floats, wandb guesses the range.

    Args:
        settings: The keys of the ``logger`` group.
        run_dir: The run directory.
        name: The run's name.
        config: The whole configuration, as plain data.
        warn: Shows a line to the user.

    Raises:
        ConfigError: If wandb is not installed or cannot begin. A server that cannot be used is no
            reason, unless WANDB_MODE asks for it: the run is kept offline then.
    """

    def __init__(
        self,
        *,
        settings: WandbSettings,
        run_dir: Path,
        name: str,
        config: Mapping[str, object],
        warn: Callable[[str], None],
    ) -> None:
        try:
            import wandb
            from wandb import Image as WandbImage  # a mere folder named wandb has none
        except ImportError as error:
            raise ConfigError("logger=wandb needs a package: pip install wandb") from error
        mode = wandb_mode()
        run_id, attempt = begin_attempt(run_dir / "wandb.json")

        def begin(mode: str) -> wandb.Run:
            quiet = wandb.Settings(
                mode=mode,  # type: ignore[arg-type]  # a word of WANDB_MODES
                silent=True,
                console="off",
                save_code=False,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_TIMEOUT_S)),
                finish_timeout=FINISH_TIMEOUT_S,
            )
            # Without this, init reports to the server even if it is told to be offline.
            wandb.setup(settings=quiet)
            run = wandb.init(
                project=settings.project,
                entity=settings.entity,
                id=run_id if mode == "online" else f"{run_id}-a{attempt}",
                resume="allow" if mode == "online" else None,
                group=settings.group or run_id,
                name=name,
                dir=str(run_dir),
                config=dict(config),
                settings=quiet,
            )
            run.define_metric("step")
            run.define_metric("*", step_metric="step")
            return run

        try:
            self.run = begin(mode)
        except Exception as error:
            is_asked_for = bool(os.environ.get("WANDB_MODE"))
            if mode != "online" or is_asked_for:
                raise ConfigError(f"logger=wandb cannot begin: {first_line(error)}") from error
            warn(f"warning: wandb is offline, its server cannot be used: {first_line(error)}")
            mode = "offline"
            try:
                wandb.teardown()
                self.run = begin(mode)
            except Exception as again:
                raise ConfigError(f"logger=wandb cannot begin: {first_line(again)}") from again
        if mode == "online":
            warn(f"wandb: {self.run.url}")
        elif mode == "offline":
            warn(f"wandb is offline; send the run with: wandb sync {Path(self.run.dir).parent}")
        self.make_image, self.teardown = WandbImage, wandb.teardown
        self.leniency = Leniency(name="wandb", warn=warn)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send metrics; ``step`` is one of them, as wandb's own counter cannot go back."""
        with self.leniency():
            self.run.log({"step": step, **values})

    def picture(self, step: int, file: Path) -> None:
        """Send a picture."""
        with self.leniency():
            self.run.log({"step": step, PICTURES: self.make_image(read_picture(file))})

    def close(self, exit_code: int) -> None:
        """End the run; what cannot be sent within a minute stays on the disk for a sync."""
        with self.leniency():
            self.run.finish(exit_code=exit_code)
        # At the exit of Python wandb does this by itself, and shows a traceback if it fails.
        with self.leniency():
            self.teardown()


@final
class TensorboardTracker(Tracker):
    """Writes event files for TensorBoard.

    Args:
        folder: Where they go.
        config: The whole configuration, as plain data.
        first_step: 0, or the step that a resumed run goes on from; later ones are purged.
        warn: Shows a line to the user.

    Raises:
        ConfigError: If tensorboard is not installed or the folder cannot be written.
    """

    def __init__(
        self,
        *,
        folder: Path,
        config: Mapping[str, object],
        first_step: int,
        warn: Callable[[str], None],
    ) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "logger=tensorboard needs a package: pip install tensorboard"
            ) from error
        purge_step = first_step + 1 if first_step else None
        try:
            self.writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=10)
        except OSError as error:
            raise ConfigError(f"logger=tensorboard cannot begin: {first_line(error)}") from error
        self.leniency = Leniency(name="tensorboard", warn=warn)
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        with self.leniency():
            # Four spaces make it code in Markdown.
            self.writer.add_text("config", textwrap.indent(text, " " * 4), first_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write metrics."""
        with self.leniency():
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def picture(self, step: int, file: Path) -> None:
        """Write a picture."""
        with self.leniency():
            pixels = read_picture(file)
            axes = "HWC" if pixels.ndim == 3 else "HW"
            self.writer.add_image(PICTURES, pixels, step, dataformats=axes)

    def close(self, exit_code: int) -> None:
        """Write what is left; TensorBoard has no word for how a run ended."""
        del exit_code
        with self.leniency():
            self.writer.close()


def wandb_mode() -> str:
    """Say how wandb would run here: ``online`` if logged in, else ``offline``; or ``disabled``.

    WANDB_MODE decides, then ``wandb offline`` or ``wandb disabled`` on this machine. It reads what
    wandb reads, without the time that importing it takes, and connects to nothing.

    Raises:
        ConfigError: If WANDB_MODE is unknown, or is ``online`` where nobody is logged in: wandb
            would ask for a key there.
    """
    stored = stored_wandb_settings()
    word = os.environ.get("WANDB_MODE", "")
    if not word:
        mode = WANDB_MODES.get(stored.get("mode", ""), "online")
        return "offline" if mode == "online" and not has_wandb_key(stored) else mode
    if word not in WANDB_MODES:
        raise ConfigError(f"WANDB_MODE: {unknown('mode', word, WANDB_MODES)}")
    mode = WANDB_MODES[word]
    if mode == "online" and not has_wandb_key(stored):
        raise ConfigError(f"WANDB_MODE={word}, but nobody is logged in: use wandb login")
    return mode


def stored_wandb_settings() -> dict[str, str]:
    """Read the settings files that ``wandb login``, ``wandb offline`` and their like write."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        home = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
        parser.read([home / "settings", Path("wandb") / "settings"])
    except (configparser.Error, ValueError, RuntimeError):
        return {}  # damaged, or nobody's home folder
    return dict(parser["default"]) if parser.has_section("default") else {}


def has_wandb_key(stored: Mapping[str, str]) -> bool:
    """Say whether there are credentials for wandb's server; they may still be wrong."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    url = os.environ.get("WANDB_BASE_URL") or stored.get("base_url", "https://api.wandb.ai")
    given = os.environ.get("NETRC")
    try:
        names = [given] if given else ["~/.netrc", "~/_netrc"]
        file = next((f for f in (Path(name).expanduser() for name in names) if f.is_file()), None)
        found = netrc.netrc(file).authenticators(urlsplit(url).netloc) if file else None
    except (OSError, ValueError, RuntimeError, netrc.NetrcParseError):
        found = None
    return bool(found and found[2]) or bool(stored.get("api_key"))


def begin_attempt(file: Path) -> tuple[str, int]:
    """Count one more attempt at a run.

    Args:
        file: What is known of the attempts before; made if it is not there.

    Returns:
        The id that all attempts share, and the number of this one, from 1.

    Raises:
        ConfigError: If the file is damaged.
    """
    run_id, attempts = secrets.token_hex(4), 0
    if file.exists():
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            run_id, attempts = str(known["id"]), int(known["attempts"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file} is damaged: delete it to begin a new group") from error
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(json.dumps({"id": run_id, "attempts": attempts + 1}), encoding="utf-8")
    temporary.replace(file)
    return run_id, attempts + 1


def read_picture(file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read a PNG of gray or colored pixels."""
    with Image.open(file) as picture:
        return np.asarray(picture)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
