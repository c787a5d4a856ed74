"""Several tokenizers, each probed by a process of its own, and compared."""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from vqtrain.app.parts.output import claimed
from vqtrain.app.parts.probes.folder import LOGS, TOKENIZER, check_several
from vqtrain.app.parts.probes.images import Sources
from vqtrain.app.parts.probes.one import open_run
from vqtrain.app.parts.probes.options import ProbeOptions
from vqtrain.app.parts.probes.run import TokenizerRun
from vqtrain.data.cache import write_whole
from vqtrain.errors import ConfigError, Interrupted, naming, require
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.generation import plot, tables
from vqtrain.generation.results import FILE, ProbeReport, read_probe, write_probe
from vqtrain.launchers.base import Ended, Job
from vqtrain.launchers.local import Local, gpus
from vqtrain.launchers.parts.ranks import WIDTH
from vqtrain.reports import page
from vqtrain.sweeps.commands import one_path

# Words of a path that say nothing of a tokenizer.
SILENT = ("", ".", "..", "latest", TOKENIZER)
# Keys that each process has of its own.
OWN_KEYS = ("tokenizer", "out")


def probe_all(
    paths: Sequence[str],
    words: Sequence[str],
    allow: Sequence[str],
    sources: Sources,
    folder: Path,
    settings: SampleSettings,
    options: ProbeOptions,
    *,
    out: str,
) -> int:
    """Probe each tokenizer, and compare them; one that fails does not stop the others.

    Args:
        paths: The tokenizers, as the user wrote them.
        words: All that was typed after the command.
        allow: As in ``vqtrain.app.parts.probes.one.open_run``, like those below.
        sources: The images.
        folder: Of the results.
        settings: How images are read, and on what all is computed.
        options: What else was asked for.
        out: The folder as the user wrote it.

    Returns:
        The exit code.
    """
    for path in paths:
        require(paths.count(path) == 1, f"tokenizer={path} is named twice")
    check_several(folder, out)
    runs = {}
    for path, name in names_of(paths, folder).items():
        with naming(path):
            runs[name] = open_run(
                path,
                words,
                allow,
                sources,
                folder / name,
                settings,
                options,
                out=str(folder / name),
            )
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    with claimed(folder, "probe"):
        try:
            failed = launch(runs, words, folder, options.devices, console)
        except (KeyboardInterrupt, Interrupted):
            console.print("stopped: run the same command again to continue")
            raise
        finally:
            conclude(runs, folder, console)
    for name, end in failed.items():
        line = f"{'failed':<12}{name}: {end.reason}; its log is {folder / LOGS / name}.log"
        console.print(line, markup=False)
    return 1 if failed else 0


def launch(
    runs: Mapping[str, TokenizerRun],
    words: Sequence[str],
    folder: Path,
    devices: int,
    console: Console,
) -> dict[str, Ended]:
    """Run what is left to run, and return how those ended that have failed.

    Raises:
        ConfigError: If all have found the same mistake.
    """
    kept = [word for word in words if word.partition("=")[0] not in OWN_KEYS]
    jobs = [
        Job(
            name=name,
            commands=[
                ["probe", *kept, f"tokenizer={one_path(run.found.path)}", f"out={folder / name}"]
            ],
            devices=devices,
        )
        for name, run in runs.items()
        if run.left
    ]
    console.print(f"{'probe':<12}{folder}", markup=False)
    there = len(runs) - len(jobs)
    done = f", {there} complete already" if there else ""
    console.print(f"{'tokenizers':<12}{len(runs)}{done}", markup=False)
    failed: dict[str, Ended] = {}

    def end(job: Job, ended: Ended) -> None:
        console.print(f"{'failed' if ended.code else 'done':<12}{job.name}", markup=False)
        if ended.code:
            failed[job.name] = ended

    logs = folder / LOGS
    is_new = not logs.exists()
    launcher = Local(processes=max(len(gpus()), devices))
    launcher.launch(jobs, logs=logs, tick=lambda: None, done=end)
    reasons = {end.reason for end in failed.values() if end.code == ConfigError.exit_code}
    if len(failed) == len(runs) and len(reasons) == 1 and is_new:
        shutil.rmtree(logs)
        raise ConfigError(reasons.pop())
    return failed


def conclude(runs: Mapping[str, TokenizerRun], folder: Path, console: Console) -> None:
    """Write what all have found so far, and show it."""
    found: dict[str, ProbeReport] = {}
    for name in runs:
        with suppress(ConfigError):  # it has not begun
            report = read_probe(folder / name)
            if report.tokenizers[0].reconstruction:
                found[name] = report
    if not found:
        return
    first = next(iter(found.values()))
    settings = {key: value for each in found.values() for key, value in each.settings.items()}
    together = replace(
        first,
        settings=settings,
        tokenizers=[replace(each.tokenizers[0], name=name) for name, each in found.items()],
    )
    write_probe(together, folder)
    plot.save_plot(together, folder)
    write_whole(folder / tables.MARKDOWN_FILE, tables.markdown(together).encode())
    file = page.write(folder)
    tables.show(together, console)
    console.print(f"{'written':<12}{file}", markup=False)
    console.print(f"{'':<12}and {FILE}, {plot.FILE}, {tables.MARKDOWN_FILE}", markup=False)


def names_of(paths: Sequence[str], folder: Path) -> dict[str, str]:
    """Name the folder of each tokenizer: as it is already, or by the last words of its path.

    Example:
        >>> names_of(["runs/a/latest", "runs/b/latest"], Path("nowhere"))
        {'runs/a/latest': 'a', 'runs/b/latest': 'b'}
        >>> names_of(["a/1", "b/1"], Path("nowhere"))
        {'a/1': 'a-1', 'b/1': 'b-1'}
    """
    known: dict[str, str] = {}
    for file in sorted(folder.glob(f"*/{FILE}")):
        with suppress(ConfigError):
            known[read_probe(file.parent).tokenizers[0].path] = file.parent.name
    new = [path for path in paths if path not in known]
    taken = {*known.values(), LOGS}
    words = {path: [word for word in path.split("/") if word not in SILENT] for path in new}
    for count in range(1, max(map(len, words.values()), default=1) + 1):
        short = {path: plain("-".join(words[path][-count:])) for path in new}
        if len({*short.values()} - taken - {""}) == len(new):
            return {path: known.get(path) or short[path] for path in paths}
    numbers = iter(range(1, len(paths) + len(taken) + 1))
    free = (f"{number}" for number in numbers if f"{number}" not in taken)
    return {path: known.get(path) or next(free) for path in paths}


def plain(text: str) -> str:
    """Keep what can be in the name of a folder anywhere."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-.")[-100:]
