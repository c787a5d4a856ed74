"""An LSTM over time that continues from piece to piece, and can be exported for any length."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan  # it has no public name yet

from vqtrain.layers.block import Block
from vqtrain.layers.causal import keep, recall


@final
class SkipLSTM(Block):
    """Adds the output of an LSTM over time to its input.

    Args:
        channels: Channels in and out, at least 1.
        num_layers: At least 1.
    """

    def __init__(self, channels: int, num_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, num_layers)

    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b c t"]:
        """Add what the LSTM gives; in a ``Stream`` it continues from the piece before."""
        if torch.compiler.is_exporting():
            return x + self._looped(x)
        past = recall(self)
        y, state = self.lstm(x.permute(2, 0, 1), None if past is None else (past[0], past[1]))
        keep(self, torch.stack(state))
        return x + y.permute(1, 2, 0)

    def _looped(self, y: Float[Tensor, "b c t"]) -> Float[Tensor, "b c t"]:
        """Write the LSTM as a loop of a graph, where torch's own has as many steps as were traced.

        The products with the input are a convolution: of a linear map over a batch of sequences
        torch keeps relations between batch and length that other samples do not meet.
        """
        for layer in range(self.lstm.num_layers):
            from_input, from_hidden, *biases = (
                self.lstm.get_parameter(f"{name}_l{layer}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )

            def step(
                state: tuple[Tensor, Tensor], given: Tensor, weight: Tensor = from_hidden
            ) -> tuple[tuple[Tensor, Tensor], Tensor]:
                hidden, cell = state
                entered, forgotten, new, shown = (given + F.linear(hidden, weight)).chunk(4, dim=1)
                cell = forgotten.sigmoid() * cell + entered.sigmoid() * new.tanh()
                hidden = shown.sigmoid() * cell.tanh()
                return (hidden, cell), hidden.clone()

            gates = F.conv1d(y, from_input[..., None], biases[0] + biases[1])
            start = y.new_zeros(y.shape[:2])
            _, outputs = scan(step, (start, start.clone()), gates.permute(2, 0, 1), dim=0)
            y = outputs.permute(1, 2, 0)
        return y
