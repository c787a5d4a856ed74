"""The command lines of a sweep's runs, and what launches them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from vqtrain.build import bind, resolve
from vqtrain.errors import ConfigError, require
from vqtrain.launchers.base import Launcher
from vqtrain.launchers.local import Local, gpus
from vqtrain.metrics.parts.build import Entry
from vqtrain.ops.cores import count_cores
from vqtrain.sweeps.job import SweepJob
from vqtrain.tokenizer.storage import packages_in
from vqtrain.weights import KNOWN


@final
@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """What is to be probed of each run.

    Attributes:
        stages: Those of the probe.
        options: Further keys of its command line, with their values.
    """

    stages: Sequence[str]
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """What all command lines have in common."""
        return [
            f"probe=[{','.join(self.stages)}]",
            *(
                # Paths are taken as typed.
                f"{key}={value if key.startswith('weights.') else in_grammar(value)}"
                for key, value in self.options.items()
            ),
        ]


def train_command(job: SweepJob, group: str) -> list[str]:
    """Return the words after ``vqtrain`` that train a run, or resume it.

    Args:
        job: The run.
        group: The group in wandb, unless the configuration names another.
    """
    words = [word for word in job.words if not word.startswith("name=")]
    logger = job.config["logger"]
    if logger.get("kind") == "wandb" and logger.get("group") is None:
        words.append(f"logger.group={json.dumps(group, ensure_ascii=False)}")
    return ["train", *words, f'name="{job.name}"', f"run_dir={job.run_dir}", "resume=auto"]


def evaluate_command(
    job: SweepJob, *, images: Sequence[str], metrics: Sequence[Entry]
) -> list[str]:
    """Return the words after ``vqtrain`` that evaluate a run.

    Args:
        job: The run.
        images: The word ``images=...``, or none for the run's validation images.
        metrics: As a run has them.
    """
    return [
        "evaluate",
        f"tokenizer={one_path(job.run_dir)}",
        *images,
        f"out={job.evaluation}",
        f"metrics=[{','.join(map(_typed, metrics))}]",
        *_shared_words(job),
        *("baselines=false", "cost=false", "worst=0"),
    ]


def probe_command(job: SweepJob, request: ProbeRequest, *, images: Sequence[str]) -> list[str]:
    """Return the words after ``vqtrain`` that probe a run, or continue its probe.

    The models are trained on the training images of the run.

    Args:
        job: The run.
        request: What is to be probed.
        images: The word ``images=...`` of the images to validate on, or none for those of the run.
    """
    data = job.config["data"]
    val = [f"val={word.removeprefix('images=')}" for word in images]
    return [
        "probe",
        f"tokenizer={one_path(job.run_dir)}",
        f"images={source_word(data['train'])}",
        *(val or [f"val={source_word(data['val'])}"]),
        f"out={job.probe}",
        f"crop={data['crop']}",
        *_shared_words(job),
        *request.words,
    ]


def _shared_words(job: SweepJob) -> list[str]:
    """Return the words that evaluating and probing a run have in common."""
    config = job.config
    packages = packages_in(config)
    given = {name: config["weights"].get(name) for name in KNOWN}
    return [
        *(["device=cpu"] if config["trainer"]["accelerator"] == "cpu" else []),
        f"num_workers={config['data']['num_workers']}",
        *([f"allow=[{','.join(packages)}]"] if packages else []),
        *(f"weights.{name}={path}" for name, path in given.items() if path is not None),
    ]


def one_path(path: str | Path) -> str:
    """Write a path so that a comma in it does not split it."""
    is_read_as_list = "," in str(path) or str(path).startswith("[")
    return json.dumps([str(path)], ensure_ascii=False) if is_read_as_list else str(path)


def source_word(images: object) -> str:
    """Write images as a path key takes them: a word as it is, a list in Hydra's grammar."""
    if isinstance(images, str) and not images.startswith("["):
        return images
    return in_grammar(images if isinstance(images, list) else [images])


def _typed(entry: Entry) -> str:
    """Write the entry of a metric in Hydra's grammar."""
    return entry if isinstance(entry, str) else in_grammar(entry)


def in_grammar(value: object) -> str:
    """Write plain data in Hydra's grammar, in which keys are not quoted.

    Example:
        >>> in_grammar([{"images": "a, b", "weight": 2.5}, None])
        '[{images:"a, b",weight:2.5},null]'
    """
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{in_grammar(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(in_grammar, value))}]"
    return json.dumps(value, ensure_ascii=False)


def metrics_of(jobs: Sequence[SweepJob]) -> list[Entry]:
    """Return what is evaluated: the metrics of all runs."""
    entries = [entry for job in jobs for entry in job.config["metrics"]["names"]]
    return list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values())


def make_launcher(
    word: str,
    *,
    devices: int | None,
    options: Mapping[str, object],
    jobs: Sequence[SweepJob],
) -> tuple[Launcher, dict[str, str]]:
    """Return the launcher of the runs, and the variables that it adds to their environment.

    Raises:
        ConfigError: If there is no such launcher, or the options do not fit it.
    """
    launcher = resolve("launcher", word)
    if launcher is not Local:
        return bind(launcher, options, where="launcher_options"), {}
    most = max(job.devices for job in jobs)
    there = gpus()
    places = devices or max(len(there), most)
    environment = {}
    if not there and places > most and "OMP_NUM_THREADS" not in os.environ:
        # Otherwise each run starts a thread per core.
        environment["OMP_NUM_THREADS"] = str(max(1, count_cores() // places))
    return Local(processes=places), environment


def check_keys(launcher: str, devices: int | None, options: Mapping[str, object]) -> None:
    """Refuse keys that do not fit the launcher.

    Raises:
        ConfigError: If one does not.
    """
    is_here = resolve("launcher", launcher) is Local
    if devices is not None:
        require(is_here, f"devices={devices} is for this machine: remove devices or launcher")
    if is_here and options:
        raise ConfigError("launcher=local takes no launcher_options")
