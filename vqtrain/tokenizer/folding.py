"""Making plain tables of codebooks whose table is computed, for a tokenizer that only is used."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from vqtrain.codebooks.simvq import SimVQ

# What a plain table does besides looking codes up, it does in training alone.
PLAIN = {
    "l2_normalize": False,
    "kmeans_iterations": 0,
    "decay": 0.95,
    "restart_below": 0.0,
    "entropy_weight": 0.0,
    "entropy_temperature": 0.01,
    "sampling_temperature": 0.0,
}


def folded_codebook(specification: Mapping[str, object]) -> dict[str, object]:
    """Name ``vq`` instead of ``simvq`` in ``{"kind": word, "arguments": {...}}``, also inside."""
    kind = specification["kind"]
    arguments = dict(cast(Mapping[str, object], specification["arguments"]))
    if kind == "simvq":
        return {"kind": "vq", "arguments": {**arguments, **PLAIN}}
    inner = arguments.get("inner")
    if isinstance(inner, Mapping):
        own = {key: value for key, value in inner.items() if key != "kind"}
        plain = folded_codebook({"kind": inner["kind"], "arguments": own})
        arguments["inner"] = {"kind": plain["kind"], **cast(dict[str, object], plain["arguments"])}
    return {"kind": kind, "arguments": arguments}


@torch.no_grad()
def folded_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a module, with a table in the place of each frozen one and its map."""
    weights = dict(module.state_dict())
    for name, part in module.named_modules():
        if isinstance(part, SimVQ):
            for gone in ("frozen", "map.weight", "map.bias"):
                del weights[f"{name}.{gone}"]
            weights[f"{name}.vectors"] = part.table()
            weights[f"{name}.average_counts"] = torch.ones_like(part.frozen[:, 0])
    return weights
