"""The page of a folder: of a run, a sweep, an evaluation or a probe."""

from collections.abc import Sequence
from pathlib import Path

import torch

from vqtrain.data.cache import write_whole
from vqtrain.errors import CheckpointError, ConfigError, require
from vqtrain.reports.evaluation import evaluation_page, is_evaluation
from vqtrain.reports.probe import is_probe, probe_page
from vqtrain.reports.render import render
from vqtrain.reports.run import Held, run_page
from vqtrain.reports.sweep import is_sweep, sweep_page
from vqtrain.training.results import CONFIG, is_run

LIMIT = 64
EXPECTED = (
    f"a run directory has {CONFIG}, an evaluation evaluation.json, a sweep sweep.json, a probe "
    "probe.json"
)
PAGES = {"sweep": sweep_page, "evaluation": evaluation_page, "probe": probe_page}


def write(
    path: Path,
    *,
    out: Path | None = None,
    other: Path | None = None,
    limit: int = LIMIT,
    device: torch.device | None = None,
    held: Held | None = None,
    allow: Sequence[str] = (),
) -> Path:
    """Write the page of a run, a sweep, an evaluation or a probe.

    Args:
        path: Its folder.
        out: A file that does not exist; None for ``report.html`` in the folder, or ``sweep.html``
            for a sweep, which is replaced.
        other: For a run: another run to compare the configuration with.
        limit: For a run: the largest number of images that its tokenizer is measured on.
        device: For a run: the device of that; None for the CPU.
        held: For a run: its validation images, if they are already open.
        allow: For a run: packages outside vqtrain whose classes its tokenizer may name.

    Returns:
        The file.

    Raises:
        ConfigError: If the folder is none of the four, or ``out`` exists.
        CheckpointError: If the page cannot be written.
    """
    require(limit >= 1, f"limit must be at least 1, got {limit}")
    if out is not None and (out.exists() or out.is_symlink()):
        raise ConfigError(f"out={out} exists already: give a file that does not")
    kind = kind_of(path)
    if other is not None and kind != "run":
        raise ConfigError(f"other={other} compares runs, but {path} is the folder of a {kind}")
    if other is not None and not is_run(other):
        raise ConfigError(f"other={other} is not a run directory: {CONFIG} is missing")
    if kind == "run":
        where = device or torch.device("cpu")
        page = run_page(path, other=other, limit=limit, device=where, held=held, allow=allow)
    else:
        page = PAGES[kind](path)
    file = out or path / ("sweep.html" if kind == "sweep" else "report.html")
    try:
        write_whole(file, render(page).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise CheckpointError(f"cannot write {file}: {error.strerror or error}") from error
    return file


def kind_of(path: Path) -> str:
    """Say what a folder is: a ``run``, a ``sweep``, an ``evaluation`` or a ``probe``.

    Raises:
        ConfigError: If it is something else.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ConfigError(f"path={path} {what}: name the folder of a run, a sweep or the like")
    if is_sweep(path):
        return "sweep"
    if is_run(path):
        return "run"
    if is_evaluation(path):
        return "evaluation"
    if is_probe(path):
        return "probe"
    near = f"; did you mean {path / 'latest'}?" if is_run(path / "latest") else ""
    raise ConfigError(
        f"path={path} is not a run, a sweep, an evaluation or a probe: {EXPECTED}{near}"
    )
