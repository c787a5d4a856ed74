"""What a sweep is to probe, from its keys to words of ``vqtrain probe``."""

import json
from collections.abc import Iterable, Mapping, Sequence

from vqtrain.app.parts.compose import flatten
from vqtrain.app.parts.keys import arguments_of, read_values
from vqtrain.app.parts.pages import page_of
from vqtrain.build import resolve
from vqtrain.errors import ConfigError, require
from vqtrain.generation.results import FILE, read_probe
from vqtrain.sweeps.commands import ProbeRequest
from vqtrain.sweeps.job import SweepJob

# Keys that the sweep sets for each run.
OWN_KEYS = ("tokenizer", "allow", "images", "val", "tokens", "out", "probe")


def read_request(
    probe: str | Sequence[str] | None, options: Mapping[str, object]
) -> ProbeRequest | None:
    """Return what is to be probed; None if nothing is.

    Args:
        probe: Value of the key: a stage, or several.
        options: Value of ``probe_options``.

    Raises:
        ConfigError: If a stage, a key or a value is wrong.
    """
    if probe is None:
        require(not options, "probe_options without probe: give probe=transformer, too")
        return None
    flat = flatten(options)
    for key in flat:
        require(key not in OWN_KEYS, f"probe_options.{key} is set by the sweep: leave it out")
    stages = probe.split(",") if isinstance(probe, str) else list(probe)
    request = ProbeRequest(stages=stages, options=flat)
    check(request)
    return request


def check(request: ProbeRequest) -> None:
    """Refuse what ``vqtrain probe`` would refuse of each run.

    Raises:
        ConfigError: If there is something.
    """
    values = read_values(page_of("probe"), ["tokenizer=x", "images=x", *request.words])
    arguments_of(resolve("command", "probe")().run, values, {"words": [], "command_line": None})


def refuse_changed(request: ProbeRequest, jobs: Iterable[SweepJob]) -> None:
    """Refuse other options than those of the probes that are there.

    Raises:
        ConfigError: If one is another.
    """
    for job in jobs:
        if not (job.probe / FILE).is_file():
            continue
        known = flatten(read_probe(job.probe).settings)
        for key, value in request.options.items():
            if key in known and json.dumps(known[key]) != json.dumps(value):
                raise ConfigError(
                    f"{job.probe} holds a probe with {key}={json.dumps(known[key])}, not "
                    f"{json.dumps(value)}: give another sweep_dir, or delete it"
                )
