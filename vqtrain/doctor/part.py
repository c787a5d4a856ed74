"""Whether a class keeps the promises of its group, so that it can be used as a part of ours."""

import importlib
from collections.abc import Mapping

from vqtrain.build import (
    build,
    contract_of,
    group_of,
    in_context,
    package_of,
    parameters_of,
    third_party,
)
from vqtrain.doctor.findings import Finding
from vqtrain.errors import ConfigError, require
from vqtrain.layers.promises import SIZES, size_for

# A run of a usual size.
CONTEXT = {
    "in_channels": 3,
    "out_channels": 3,
    "sample_size": SIZES[2],
    "aligned_channels": 4,
    "aligned_grid": (4, 4),
    "sample_rate": 16_000,
    "max_steps": 1000,
    "world_size": 1,
}


def examine_part(kind: str, arguments: Mapping[str, object]) -> Finding:
    """Build a part, and put it through the check of its group's contract.

    Args:
        kind: ``package.module:Class``.
        arguments: Of its constructor; others keep their defaults. What a part asks of the run,
            such as ``in_channels`` and ``sample_size``, is that of a run of a usual size unless it
            is among them.

    Raises:
        ConfigError: If there is no such class, it is no part, or it cannot be built with these
            arguments.
    """
    require(":" in kind, f"part must be package.module:Class, got {kind!r}")
    found_class = third_party(kind, where="part")
    group = group_of(found_class)
    contract, module = contract_of(group), f"{package_of(group)}.contract"
    usual = {**CONTEXT, "sample_size": size_for(found_class)}
    context = {**usual, **{key: arguments[key] for key in arguments if key in CONTEXT}}
    own = {key: value for key, value in arguments.items() if key not in CONTEXT}
    known = in_context(group, {"kind": kind, "arguments": own}, context)["arguments"]
    assert isinstance(known, Mapping), "they were a mapping"
    name = f"{contract.__module__}.{contract.__qualname__}"
    try:
        check = importlib.import_module(module).check
        # A check has sizes of its own for a part that neither asks for one nor is given one.
        asked = parameters_of(check).keys() & context.keys() & {*known, *arguments}
        check(build(group, kind, known, where="arguments"), **{key: context[key] for key in asked})
    except Exception as error:  # whatever a stranger's class does
        if isinstance(error, ConfigError) and str(error).startswith("arguments"):
            # What the class itself refuses is said of the class, not of one argument.
            raise ConfigError(str(error).replace("arguments=", "part=", 1)) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        found, remedy = f"{kind}: {reason}", f"see the contract, {name}"
        return Finding(name=group, found=found, remedy=remedy, is_broken=True)
    return Finding(name=group, found=f"{kind} keeps the contract {name}")
