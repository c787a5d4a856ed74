"""Words that choose a part: a class, a further loss term, an inner codebook, a list of metrics."""

from collections.abc import Mapping, Sequence

import yaml
from hydra.core.config_store import ConfigStore

from vqtrain.app.parts.choices import refuse_unlisted
from vqtrain.build import CONTEXT, GROUPS, configs_folder, parameters_of, resolve, unknown
from vqtrain.errors import ConfigError

# Codebooks that are made of another one name it here.
INNER_CODEBOOK = "codebook.inner"

# Groups of which the user names the keys.
OPEN_GROUPS = ("callbacks.",)


def choose_class(word: str, choices: dict[str, list[str]]) -> str:
    """Let ``encoder=package.module:Class`` choose a class, and ``loss/mine=l2`` add a term.

    Hydra gets a config that holds the kind and every argument of the class: its default, or
    none yet, so that ``encoder.width=8`` sets it.
    """
    key, _, value = word.partition("=")
    group = "codebook" if key == INNER_CODEBOOK else key
    is_new_term = group.startswith("loss/") and group not in choices and "@" not in group
    is_class = ":" in value and group in choices and part_of(group) in GROUPS
    if not is_new_term and not is_class:
        return word
    files = list(configs_folder().glob(f"loss/*/{value}.yaml")) if ":" not in value else []
    node = yaml.safe_load(files[0].read_text()) if files else config_of_class(group, value)
    ConfigStore.instance().store(group=group, name=value, node=node)
    choices.setdefault(group, []).append(value)
    return f"+{word}" if is_new_term else word


def part_of(group: str) -> str:
    """Return the group of parts that a config group chooses from."""
    return "adversarial" if group == "loss/adversarial" else group.partition("/")[0]


def config_of_class(group: str, kind: str) -> dict[str, object]:
    """Write a third party's class as a config of a group would; terms have the keys of ours."""
    common = {"loss": "loss/reconstruction/l1.yaml", "adversarial": "loss/adversarial/hinge.yaml"}
    part, missing = part_of(group), "???"
    ours = common.get(part)
    node = yaml.safe_load((configs_folder() / ours).read_text()) if ours else {}
    for name, parameter in parameters_of(resolve(part, kind, where=group)).items():
        if name not in CONTEXT:
            node[name] = missing if parameter.default is parameter.empty else parameter.default
    return {**node, "kind": kind}


def choose_part(word: str, choices: Mapping[str, Sequence[str]]) -> str:
    """Let ``codebook.inner=fsq`` choose a file, as ``codebook=fsq`` does, and metrics be a list."""
    key, _, value = word.partition("=")
    if key == "metric":
        raise ConfigError(f"metrics are a list: write metrics=[{value}]")
    if key == "metrics":
        refuse_unlisted(value)
    if key == "metrics" and value.startswith("["):
        return f"metrics.names={value}"
    if key != INNER_CODEBOOK:
        return word
    if value not in choices["codebook"]:
        raise ConfigError(unknown(key, value, choices["codebook"]))
    return f"codebook@{INNER_CODEBOOK}={value}"


def open_key(word: str) -> str:
    """Let ``callbacks.mine.every=3`` add a key, without the ``+`` that Hydra asks for."""
    return f"++{word}" if word.startswith(OPEN_GROUPS) else word
