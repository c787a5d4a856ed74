"""The stages of ``vqtrain discretize``, each of which is done once."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import final

from rich.console import Console

from vqtrain.app.parts.discretizing.plan import DiscretizePlan
from vqtrain.app.parts.discretizing.results import FILE, TABLE, Results, Row, markdown, save
from vqtrain.app.parts.latents import data_words
from vqtrain.app.parts.output import claimed, ending_in_order, holds_something
from vqtrain.app.parts.progress import shown_progress, under
from vqtrain.app.tokenize import encoder
from vqtrain.data.cache import write_whole
from vqtrain.data.shards.folder import ALL
from vqtrain.data.tokens.report import read_report
from vqtrain.data.tokens.write import write
from vqtrain.errors import ConfigError, DataError, FailedError, Interrupted, require
from vqtrain.evaluation.models import Model, measure_model
from vqtrain.launchers.base import Ended, Job
from vqtrain.launchers.local import Local
from vqtrain.launchers.parts.ranks import WIDTH
from vqtrain.metrics.base import Metric
from vqtrain.ops.json_files import read_json
from vqtrain.tokenizer.discretized import compose, swapped
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training import run_directory
from vqtrain.training.results import METRICS

# Folders of the stages.
LATENTS, CODEBOOK, COMPOSED, DECODER, TOKENIZER = (
    *("latents", "codebook", "composed"),
    *("decoder", "tokenizer"),
)
LOGS = "logs"
# Rows of the table.
CONTINUOUS, WITH_CODEBOOK, WITH_DECODER = "continuous", "with the codebook", "decoder trained"


def discretize(plan: DiscretizePlan) -> int:
    """Do what is left to do, and say what came of it."""
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    work = Work(plan=plan, console=console, results=begun(plan))
    if plan.is_printed:
        for job in work.jobs():
            sys.stdout.write(f"vqtrain {shlex.join(job)}\n")
        return 0
    with ending_in_order(), claimed(plan.out, "discretize"):
        save(work.results, plan.out)
        try:
            work.do_all()
        except (KeyboardInterrupt, Interrupted):
            console.print("stopped: run the same command again to continue")
            raise
    return 0


def begun(plan: DiscretizePlan) -> Results:
    """Read what was done before, or begin.

    Raises:
        ConfigError: If the folder holds something else, or was begun with something else.
    """
    now = Results(command=plan.command, described=plan.described)
    if not holds_something(plan.out):
        return now
    require(
        (plan.out / FILE).is_file(),
        f"out={plan.out} is not of vqtrain discretize: give another folder",
    )
    before = read_json(Results, plan.out / FILE)
    names = {"tokenizer": "another tokenizer", "images": "other images"}
    for key, value in now.described.items():
        if before.described.get(key) != json.loads(json.dumps(value)):
            what = names.get(key, f"other keys of the {key}: {different(before, now, key)}")
            raise ConfigError(f"out={plan.out} was begun with {what}; give another out")
    return replace(before, command=plan.command)


def different(before: Results, now: Results, key: str) -> str:
    """Name the words that were typed before alone, and those that are typed now alone."""
    old, new = (set(map(str, each.described.get(key, []))) for each in (before, now))  # type: ignore[call-overload]  # lists
    only_old, only_new = " ".join(sorted(old - new)), " ".join(sorted(new - old))
    return f"{only_old or 'the default'}, not {only_new or 'the default'}"


@final
@dataclass(kw_only=True)
class Work:
    """The stages that are left.

    Attributes:
        plan: What is to be done.
        console: Where to say how it goes.
        results: So far.
    """

    plan: DiscretizePlan
    console: Console
    results: Results

    @cached_property
    def metrics(self) -> Mapping[Metric, Mapping[str, str]]:
        """The metrics of the table, with their weights."""
        return self.plan.load_metrics(self.console)

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage."""
        return self.plan.out / stage

    def jobs(self) -> list[list[str]]:
        """Write the command lines of all trainings, as far as they are known."""
        found = []
        if self.plan.codebook is None:
            found.append(self.codebook_job())
        if self.plan.decoder_steps > 0:
            found.append(self.decoder_job())
        return found

    def do_all(self) -> None:
        """Do one stage after the other."""
        plan = self.plan
        self.measure(CONTINUOUS, lambda: plan.original)
        if plan.codebook is None:
            self.write_latents()
            self.train(CODEBOOK, self.codebook_job, plan.max_steps)
        if not (self.folder(COMPOSED) / "config.json").is_file():
            self.composed().save_pretrained(self.folder(COMPOSED))
        self.measure(WITH_CODEBOOK, lambda: self.load(COMPOSED))
        last = COMPOSED
        if plan.decoder_steps > 0:
            self.train(DECODER, self.decoder_job, plan.decoder_steps)
            self.measure(WITH_DECODER, lambda: self.load(DECODER))
            last = DECODER
        self.conclude(last)

    def load(self, stage: str) -> Tokenizer:
        """Load the tokenizer of a stage."""
        return Tokenizer.from_pretrained(self.folder(stage), allow=self.plan.allow)

    def composed(self) -> Tokenizer:
        """Put the codebook into the tokenizer."""
        original = Tokenizer.from_pretrained(self.plan.path, allow=self.plan.allow)
        if self.plan.codebook is not None:
            return swapped(original, self.plan.codebook)
        return compose(original, self.load(CODEBOOK))

    def write_latents(self) -> None:
        """Write the latents of all images, unless they are there."""
        plan = self.plan
        plans, encode = plan.latents, encoder(plan.original, plan.settings, latents=True)
        for side, each in plans.items():
            with shown_progress(self.console, "looking for the fields of the images") as progress:
                write(
                    each,
                    out=self.folder(LATENTS) / side,
                    encode=encode,
                    share=ALL,
                    num_workers=plan.settings.workers,
                    max_bad_fraction=plan.max_bad_fraction,
                    progress=under(f"latents of {side} images", progress),
                )

    def codebook_job(self) -> list[str]:
        """Write the command line of the training on latents."""
        folder, words = self.folder(LATENTS), list[str]()
        with suppress(DataError):  # not yet written
            words = data_words(read_report(folder / "train", kind="latents"))
        return [
            "train",
            *self.plan.codebook_words,
            *words,
            *(f"data.train={folder / 'train'}", f"data.val={folder / 'val'}"),
            *(f"run_dir={self.folder(CODEBOOK)}", "resume=auto"),
        ]

    def decoder_job(self) -> list[str]:
        """Write the command line of the training of the decoder."""
        return [
            "train",
            *self.plan.decoder_words,
            f"init_from={self.folder(COMPOSED)}",
            *(f"run_dir={self.folder(DECODER)}", "resume=auto"),
        ]

    def train(self, stage: str, job: Callable[[], Sequence[str]], max_steps: int) -> None:
        """Train, or continue, unless it has come to its end.

        Raises:
            FailedError: If the training ends before its last step.
        """
        folder, ends = self.folder(stage), list[Ended]()
        if self.is_trained(stage):
            return
        log = self.folder(LOGS) / f"{stage}.log"
        self.console.print(f"{stage:<12}training, with all that it says in {log}", markup=False)
        with shown_progress(self.console, stage, "step") as progress:
            Local(processes=self.plan.devices).launch(
                [Job(name=stage, commands=[job()], devices=self.plan.devices)],
                logs=self.folder(LOGS),
                tick=lambda: progress(stage, last_step(folder), max_steps),
                done=lambda _, end: ends.append(end),
            )
        (end,) = ends
        if end.code != 0:
            raise FailedError(
                f"the training of the {stage} ended with {end.code}: {end.reason}; its log is {log}"
                "; run the same command again to continue"
            )
        if not self.is_trained(stage):
            raise FailedError(
                f"the training of the {stage} has not come to its end, as trainer.max_time is over:"
                " run the same command again to continue"
            )

    def is_trained(self, stage: str) -> bool:
        """Say whether a training has reached its last step."""
        folder = self.folder(stage)
        found = run_directory.last_checkpoint(folder)
        return found is not None and not run_directory.is_unfinished(folder)

    def measure(self, name: str, load: Callable[[], Tokenizer]) -> None:
        """Measure a tokenizer on the images, unless it is measured."""
        if self.results.named(name) is not None:
            return
        plan, settings = self.plan, self.plan.settings
        tokenizer = settings.placed(load())
        transform = settings.transform(tokenizer)
        model = Model(
            name=name, folder=".", tokenizer=tokenizer, transform=transform, num_tokens=None
        )
        with shown_progress(self.console, name) as progress:
            measured = measure_model(
                model,
                plan.val,
                list(self.metrics),
                {metric.name: rule for metric, rule in self.metrics.items()},
                settings,
                digest="",
                baselines={},
                progress=lambda done, total: progress(f"measuring: {name}", done, total),
            )
        row = Row(
            name=name,
            bits_per_pixel=model.bits_per_pixel,
            metrics=measured.tokenizer.metrics,
        )
        self.results = replace(self.results, rows=[*self.results.rows, row])
        save(self.results, plan.out)

    def conclude(self, stage: str) -> None:
        """Write the tokenizer and the table."""
        plan, rows = self.plan, self.results.rows
        tokenizer = self.load(stage)
        measured = {f"val/{name}": value for name, value in rows[-1].metrics.items()}
        tokenizer.training_summary.setdefault("metrics", measured)
        tokenizer.training_summary["discretized"] = {
            "tokenizer": {"path": plan.path, "sha256": plan.digest},
            "images": len(plan.val),
            "metrics": {row.name: dict(row.metrics) for row in rows},
        }
        tokenizer.save_pretrained(self.folder(TOKENIZER))
        table = markdown(rows, plan.metrics)
        write_whole(self.folder(TABLE), table.encode())
        self.console.print(table, markup=False, end="")
        written = f"{self.folder(TOKENIZER)}, {tokenizer.vocab_size:,} ids"
        self.console.print(f"{'written':<12}{written}", markup=False)


def last_step(run_dir: Path) -> int:
    """Return the last step that a run has logged; 0 before the first."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        return int(json.loads((run_dir / METRICS).read_bytes().splitlines()[-1])["step"])
    return 0
