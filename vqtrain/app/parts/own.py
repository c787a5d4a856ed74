"""Parts of the user's own, put through the contract of their group before a run starts."""

import copy
import importlib
import sys
from collections.abc import Mapping, Sequence
from traceback import extract_tb
from typing import cast

from vqtrain.build import package_of, parameters_of, raised_at
from vqtrain.errors import ConfigError
from vqtrain.losses.parts.frames import seen_size
from vqtrain.metrics.base import Metric
from vqtrain.metrics.parts.adapter import TorchMetric
from vqtrain.metrics.parts.build import Entry, kind_of
from vqtrain.objective import Objective


def check_objective(
    objective: Objective, config: Mapping[str, Mapping[str, object]], context: Mapping[str, object]
) -> None:
    """Check the loss terms and the discriminator that are no kinds of ours.

    Args:
        objective: As it is built.
        config: The composed configuration.
        context: What is known of the run, by names of ``vqtrain.build.CONTEXT``.

    Raises:
        ConfigError: For the first promise that one does not keep.
    """
    adversarial = objective.adversarial.loss
    parts: dict[str, tuple[str, object]] = {"loss.adversarial": ("adversarial", adversarial)}
    parts |= {f"loss.{name}": ("loss", term.loss) for name, term in objective.terms.items()}
    parts["loss.alignment"] = ("alignment", objective.alignment)
    parts["discriminator"] = ("discriminator", objective.discriminator)
    for where, (group, part) in parts.items():
        node: object = config
        for key in where.split("."):
            node = cast(Mapping[str, object], node)[key]
        kind = cast(Mapping[str, object], node)["kind"]
        known = dict(context)
        if group in ("loss", "discriminator"):
            size = cast(Sequence[int], context["sample_size"])
            known["sample_size"] = seen_size(type(part), size, where=where)
        check_part(group, str(kind), part, where=where, context=known)


def check_metrics(
    entries: Sequence[Entry], metrics: Sequence[Metric], context: Mapping[str, object]
) -> None:
    """Check the metrics that are no kinds of ours.

    Raises:
        ConfigError: For the first promise that one does not keep.
    """
    for entry, metric in zip(entries, metrics, strict=True):
        if not isinstance(metric, TorchMetric):
            check_part("metric", kind_of(entry), metric, where="metrics", context=context)


def check_part(
    group: str, kind: str, part: object, *, where: str, context: Mapping[str, object]
) -> None:
    """Check a copy of a part by its group's contract, if it is a third party's.

    Args:
        group: A key of ``vqtrain.build.GROUPS``.
        kind: Of the part.
        part: As it is built.
        where: The config key that names it, for messages.
        context: Arguments of the check, where it takes them by name.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    if ":" not in kind:
        return
    check = importlib.import_module(f"{package_of(group)}.contract").check
    names = parameters_of(check).keys() & context.keys()
    try:
        check(copy.deepcopy(part), **{name: context[name] for name in names})
    except ConfigError as error:
        raise ConfigError(f"{where}={kind}: {error}") from error
    except Exception as error:  # whatever a stranger's class does
        raise ConfigError(f"{where}={kind}: {raised_at(error, type(part))}") from error


def refuse_own(kind: str, part: object, error: Exception, *, where: str) -> None:
    """Say that a part has raised an error, if it is a third party's and has.

    Raises:
        ConfigError: If it has.
    """
    files = {frame.filename for frame in extract_tb(error.__traceback__)}
    if ":" in kind and sys.modules[type(part).__module__].__file__ in files:
        raise ConfigError(f"{where}={kind}: {raised_at(error, type(part))}") from error
