"""What a sweep is to probe, from its keys to words of ``vqtrain probe``."""

import json
from collections.abc import Iterable, Mapping, Sequence

from vqtrain.app.parts.compose import flatten
from vqtrain.app.parts.keys import arguments_of, read_values
from vqtrain.app.parts.pages import page_of
from vqtrain.app.parts.probes.folder import typed
from vqtrain.app.parts.probes.options import ProbeOptions
from vqtrain.app.probe import Probe
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
    settings_of(request)  # refuses what vqtrain probe would refuse
    needs = "probe=samples draws from the transformer: give probe=[transformer,samples]"
    require("samples" not in stages or "transformer" in stages, needs)
    return request


def settings_of(request: ProbeRequest) -> dict[str, object]:
    """Return the keys of ``vqtrain probe`` that decide the figures, with their values.

    Raises:
        ConfigError: If a key or a value is wrong.
    """
    values = read_values(page_of("probe"), ["tokenizer=x", "images=x", *request.words])
    context: dict[str, object] = {"words": []}
    options = arguments_of(Probe().run, values, context)["options"]
    assert isinstance(options, ProbeOptions), "these are its own options"
    return {**request.options, **flatten(options.described(options.stages))}


def refuse_changed(request: ProbeRequest, jobs: Iterable[SweepJob]) -> None:
    """Refuse other keys than those of the probes that are there.

    Raises:
        ConfigError: If one is another.
    """
    settings = settings_of(request)
    for job in jobs:
        if not (job.probe / FILE).is_file():
            continue
        known = flatten(read_probe(job.probe).settings)
        for key, value in settings.items():
            # As JSON, where a tuple is a list.
            if key in known and known[key] != json.loads(json.dumps(value)):
                raise ConfigError(
                    f"{job.probe} holds a probe with {key}={typed(known[key])}, not "
                    f"{typed(value)}: give another sweep_dir, or delete it"
                )
