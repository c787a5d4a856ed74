"""A pretrained network that a module uses, and neither trains nor saves."""

from collections.abc import Callable
from typing import Any, final

from torch import Tensor, nn


@final
class Frozen(nn.Module):
    """Holds a network in eval mode outside the tree of modules.

    So the network is in no ``state_dict`` and in no ``parameters()`` of what uses it: no optimizer,
    average or gradient reduction sees it, and checkpoints stay small. It still moves with its
    owner to a device and to a precision. Its parameters take no gradients; gradients of its input
    pass through it.

    Args:
        network: With its weights.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # A module in a tuple is not registered.
        self.hidden = (network.requires_grad_(False).eval(),)

    @property
    def network(self) -> Any:  # noqa: ANN401 - of any class
        """The network itself."""
        return self.hidden[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        """Move the network, too; torch calls this for ``to``, ``double`` and the like."""
        self.network._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's
        return self

    def forward(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - those of the network
        """Run the network."""
        return self.network(*arguments, **options)
