"""``vqtrain doctor``: what works on this machine, what is missing and how to get it."""

import importlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import final

from rich.console import Console
from rich.text import Text

from vqtrain.app.base import Command
from vqtrain.app.parts.compose import CommandLine, compose, read_command_line
from vqtrain.build import unknown
from vqtrain.doctor.findings import Finding
from vqtrain.doctor.machine import examine_machine, examine_software
from vqtrain.errors import ConfigError

STYLES = {
    "ok": "green",
    "absent": "yellow",
    "slow": "bold yellow",
    "missing": "bold red",
    "broken": "bold red",
}
SHORT_KEYS = {
    "images": "data.train",
    "image_size": "data.image_size",
    "crop": "data.crop",
    "batch_size": "data.batch_size",
    "precision": "trainer.precision",
    "device": "trainer.accelerator",
}
# The choice of data that samples of other media need.
KINDS = {"videos": "video", "sounds": "sound"}
ACCELERATORS = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}
# Without these a step cannot be made, or, where the release is a bad one, must not be.
NEEDED_FOR_STEPS = ("torch", "lightning")


@final
class Doctor(Command):
    """Examines this machine, and the images and the speed of a run if one is described."""

    is_composed = True

    def run(
        self,
        *,
        words: list[str],
        part: str | None,
        arguments: dict[str, object],
        **_: object,
    ) -> int:
        """Examine, and say what was found."""
        if part is not None:
            finding = importlib.import_module("vqtrain.doctor.part").examine_part(part, arguments)
            show(finding)
            return int(finding.mark == "broken")
        command_line = as_train(words)
        if command_line.print_config:
            shown = importlib.import_module("vqtrain.app.parts.planned")
            return int(shown.print_config(command_line))
        software = examine_software()
        # What is wrong with the words is said in one line, before anything else.
        has_run = bool(command_line.paths or command_line.overrides)
        run = examine_run(command_line, software) if has_run else iter(())
        is_missing = False
        for finding in chain(software, examine_machine(), run):
            show(finding)
            is_missing |= finding.mark == "missing"
        return int(is_missing)


def as_train(words: Sequence[str]) -> CommandLine:
    """Write a command line with the keys of the run that the doctor's own ones stand for.

    Raises:
        ConfigError: If there is no such device, or if ``images`` and ``data.train`` are both given.
    """
    typed = [word.partition("=")[0] for word in words]
    sources = [key for key in ("images", "videos", "sounds", "data.train") if key in typed]
    if len(sources) > 1:
        raise ConfigError(f"{sources[0]} stands in for {sources[1]}: give one of them")
    return read_command_line([each for word in words for each in expand(word)])


def expand(word: str) -> list[str]:
    """Write one word ``key=value`` with the keys of the run."""
    key, _, value = word.partition("=")
    if key in KINDS:
        return [f"data={KINDS[key]}", f"data.train={value}"]
    if key == "device":
        if value not in ACCELERATORS:
            raise ConfigError(unknown("device", value, ACCELERATORS))
        value = ACCELERATORS[value]
    return [f"{SHORT_KEYS[key]}={value}" if key in SHORT_KEYS else word]


def examine_run(command_line: CommandLine, software: Sequence[Finding]) -> Iterator[Finding]:
    """Look at the pictures and the speed of a run, as far as the software lets it run.

    Raises:
        VqtrainError: If the run would be refused; before the first finding.
    """
    config = compose("train", command_line)
    if not config["data"]["train"]:
        raise ConfigError("no images are named: give images=demo, a folder, a glob, tars or a URL")
    for finding in software:
        if finding.name in NEEDED_FOR_STEPS and finding.remedy is not None:
            found = f"not looked at: {finding.name} comes first, see above"
            return iter([Finding(name="images", found=found, is_there=False)])
    try:
        planned = importlib.import_module("vqtrain.app.parts.planned")
    except (ImportError, OSError, RuntimeError) as error:
        # torchvision says by a RuntimeError that it was built for another torch.
        reason = " ".join(str(error).split())
        remedy = "reinstall torch and torchvision in versions that belong together"
        return iter([Finding(name="images", found=f"not looked at: {reason}", remedy=remedy)])
    findings: Iterator[Finding] = planned.examine(config)
    return findings


def show(finding: Finding) -> None:
    """Print a line of the table, in color on a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    mark = (f"{finding.mark:<9}", STYLES[finding.mark])
    console.print(Text.assemble(mark, f"{finding.name:<14}", finding.found))
    if finding.remedy is not None:
        console.print(Text(f"{'':<23}-> {finding.remedy}"))
