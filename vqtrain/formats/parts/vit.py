"""Between the layouts of published transformers and ours: positions, linear maps, names."""

from collections.abc import Mapping, Sequence
from math import isqrt

from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.errors import CheckpointError
from vqtrain.formats.parts.loading import Names

# Modules of a block there and here: of open_clip, from which most have theirs.
CLIP: Names = (
    ("ln_1.", "norm1."),
    ("attn.in_proj_weight", "attn.qkv.weight"),
    ("attn.in_proj_bias", "attn.qkv.bias"),
    ("attn.out_proj.", "attn.proj."),
    ("ln_2.", "norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
)


def block_names(theirs: str, own: str, depth: int, parts: Names = CLIP) -> Names:
    """List what the modules of numbered blocks are called there and here.

    Args:
        theirs: What stands before the numbers there.
        own: And here.
        depth: How many blocks there are.
        parts: Modules of a block.
    """
    return [
        (f"{theirs}{index}.{their_part}", f"{own}{index}.{own_part}")
        for index in range(depth)
        for their_part, own_part in parts
    ]


def side_of(
    weights: Mapping[str, Shaped[Tensor, "..."]], names: Sequence[str], axis: int, *, each: int = 1
) -> int:
    """Return the rows of a square, which are its columns, too, from tables of all its places.

    Args:
        weights: All of a file.
        names: Of the tables; of several that differ, one that makes a square is taken.
        axis: Of the places.
        each: Rows of a table for a place.

    Raises:
        CheckpointError: If there is no table, or none makes a square.
    """
    counts = {
        name: weights[name].shape[axis]
        for name in names
        if name in weights and weights[name].ndim > axis
    }
    if not counts:
        raise CheckpointError(f"it has no tensor of the form {' or '.join(names)}")
    sides = [isqrt(count // each) for count in counts.values()]
    squares = [side for side in sides if side and each * side**2 in counts.values()]
    if not squares:
        name, count = next(iter(counts.items()))
        raise CheckpointError(f"{name} has {count} rows, which make no square")
    return squares[0]


def heads_of(width: int, head_dim: int) -> int:
    """Return the number of attention heads.

    Raises:
        CheckpointError: If they do not divide the width.
    """
    if width % head_dim:
        raise CheckpointError(f"head_dim={head_dim} does not divide its attention of {width}")
    return width // head_dim


def laid_out(
    weights: Mapping[str, Shaped[Tensor, "..."]],
    *,
    linear: tuple[str, ...] = (),
    positions: tuple[str, ...] = (),
    side: int = 0,
) -> dict[str, Shaped[Tensor, "..."]]:
    """Put weights into our layout; those of another shape stay as they are, to be refused.

    Args:
        weights: All of a file.
        linear: Names of matrices that are 1x1 convolutions here.
        positions: Names of tables [n, dim], or [1, n, dim], of the positions of a square.
        side: Rows and columns of that square.
    """
    own = dict(weights)
    for name in linear:
        if name in own and own[name].ndim == 2:
            own[name] = own[name][..., None, None]
    for name in positions:
        table = own.get(name)
        if table is not None and table.ndim > 1 and table.shape[:-1].numel() == side**2:
            flat = table.reshape(side**2, -1)
            own[name] = rearrange(flat, "(rows columns) dim -> dim rows columns", rows=side)
    return own
