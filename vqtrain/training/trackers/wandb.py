"""Weights & Biases: online if the user is logged in, else offline in ``run_dir/wandb``."""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from vqtrain.build import unknown
from vqtrain.errors import ConfigError
from vqtrain.training.trackers.base import IMAGES, Leniency, Tracker, first_line, read_image

# Without these, wandb waits for its server for 90 s, and at the end of a run for ever.
INIT_TIMEOUT_S, FINISH_TIMEOUT_S = 30.0, 60.0
WANDB_MODES = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


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


@final
class WandbTracker(Tracker):
    """Sends a run to Weights & Biases, or keeps it in ``run_dir/wandb`` for ``wandb sync``.

    Offline runs with one id would overwrite each other as they are synced, so that each attempt
    has its own id there; a group holds them together. Images are passed as uint8, as wandb guesses
    the range of floats.

    Args:
        settings: The keys of the ``logger`` group.
        run_dir: The run directory.
        name: The run's name.
        config: The whole configuration, as plain data.
        warn: Prints a line for the user.

    Raises:
        ConfigError: If wandb is not installed or cannot begin. If its server cannot be used, the
            run is kept offline, unless WANDB_MODE asks for online.
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
            # Without this, init reports to the server even in offline mode.
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

    def image(self, step: int, file: Path) -> None:
        """Send an image."""
        with self.leniency():
            self.run.log({"step": step, IMAGES: self.make_image(read_image(file))})

    def close(self, exit_code: int) -> None:
        """End the run; what cannot be sent within a minute stays on disk for a sync."""
        with self.leniency():
            self.run.finish(exit_code=exit_code)
        # wandb does this when Python exits, and prints a traceback if it fails.
        with self.leniency():
            self.teardown()


def wandb_mode() -> str:
    """Ask wandb how it would run here: ``online`` if logged in, else ``offline``; or ``disabled``.

    WANDB_MODE decides, then ``wandb offline`` or ``wandb disabled`` on this machine. Nothing is
    sent to a server.

    Raises:
        ConfigError: If WANDB_MODE is unknown, or is ``online`` while nobody is logged in, in which
            case wandb would ask for a key.
    """
    import wandb

    word = os.environ.get("WANDB_MODE", "")
    if word and word not in WANDB_MODES:
        raise ConfigError(f"WANDB_MODE: {unknown('mode', word, WANDB_MODES)}")
    try:
        settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
        mode = WANDB_MODES.get(settings.mode, "online")
        if mode != "online" or wandb.login(prompt=False, verify=False):
            return mode
    except wandb.Error:
        pass  # the key is malformed
    if word:
        raise ConfigError(f"WANDB_MODE={word}, but nobody is logged in: use wandb login")
    return "offline"


def begin_attempt(file: Path) -> tuple[str, int]:
    """Count another attempt at a run.

    Args:
        file: Records the earlier attempts; created if it does not exist.

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
