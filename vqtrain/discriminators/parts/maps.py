"""What comes out of each layer of a network."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu


def maps_of(
    layers: Iterable[nn.Module], x: Float[Tensor, "b c h w"], *, slope: float
) -> list[Float[Tensor, "b _ _ _"]]:
    """Return the output of each layer, after a leaky ReLU of all but the last one."""
    *inner, last = layers
    maps = []
    for layer in inner:
        x = leaky_relu(layer(x), slope)
        maps.append(x)
    return [*maps, last(x)]
