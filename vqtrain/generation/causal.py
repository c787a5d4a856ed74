"""A transformer that predicts each id from those before it in a sequence."""

import math
from typing import ClassVar, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vqtrain.generation.base import Condition, TokenModel
from vqtrain.generation.form import TokenForm
from vqtrain.generation.network import Network
from vqtrain.generation.sampling import Sampling
from vqtrain.generation.vocabulary import Vocabulary
from vqtrain.ops.noise import SampleNoise
from vqtrain.sequence import SPECIAL_TOKENS, SequenceLayout


@final
class Causal(TokenModel):
    """Predicts id after id, row by row, from all ids before it and the condition.

    The sequence is the condition, the begin token and the ids in the order of ``SequenceLayout``.
    At each position only the ids that the layout allows there have a probability, so that an image
    is always valid, and what is known of a position costs nothing.

    Args:
        form: Of the ids.
        condition: What is known of each sample; its values come first in the sequence.
        depth: Blocks of the transformer.
        dim: Its channels.
        order: Of the ids of several codebooks, interleaved or delayed.

    References:
        Esser et al. 2021, arXiv:2012.09841, section 3.2. Deviation: a pre-norm transformer, with
        one embedding of positions in the sequence.
    """

    kind: ClassVar[str] = "causal"
    is_bound: ClassVar[bool] = False

    def __init__(
        self, *, form: TokenForm, condition: Condition, depth: int, dim: int, order: str
    ) -> None:
        super().__init__()
        k = form.num_codebooks
        self.form, self.condition = form, condition
        self.layout = SequenceLayout(
            size=form.size, num_codebooks=k, text_size=condition.size, end=False, order=order
        )
        # A grid of any number of axes is a list of positions, with the axes in their order.
        grid = (math.prod(form.levels[0]),) if k > 1 else (form.num_tokens,)
        self.flat_shape = grid if k == 1 else (k, *grid)
        smallest = self.layout.allowed(self.flat_shape)[1:, 0]
        # Both orders list the k codebooks in turn.
        self.first_ids: Int64[Tensor, " k"]
        self.register_buffer("first_ids", condition.size + form.size * torch.arange(k), False)
        self.has_id: Bool[Tensor, "k steps"]
        has_id = rearrange(smallest < self.layout.begin_id, "(steps k) -> k steps", k=k)
        self.register_buffer("has_id", has_id, False)
        self.vocabulary = Vocabulary(
            form=form, before=condition.size, after=len(SPECIAL_TOKENS), dim=dim
        )
        self.network = Network(depth=depth, dim=dim, groups=range(condition.length + len(smallest)))

    @property
    def flops(self) -> int:
        """Operations of one sample in training."""
        return 3 * (self.network.flops + self.vocabulary.flops(self.has_id.numel()))

    def nats(
        self,
        token_ids: Int64[Tensor, " b *tokens"],
        conditions: Int64[Tensor, "b m"],
        noise: SampleNoise,
    ) -> Float[Tensor, " b"]:
        """Return the code length of each sample."""
        del noise
        sequence = self._sequence(token_ids)
        streams = rearrange(sequence[:, 1:], "b (steps k) -> b k steps", k=len(self.first_ids))
        own = (streams - self.first_ids[:, None]).where(self.has_id, 0)
        nats = self.vocabulary.nats(self.hidden(sequence, conditions), own)
        return nats.where(self.has_id, 0).sum(dim=(1, 2))

    def hidden(
        self, sequence: Int64[Tensor, "b length"], conditions: Int64[Tensor, "b m"]
    ) -> Float[Tensor, "b k steps dim"]:
        """Return what the ids after the begin token are predicted from."""
        inputs = torch.cat([conditions, sequence[:, :-1]], dim=1)
        hidden = self.network(self.vocabulary(inputs))[:, conditions.shape[1] :]
        return rearrange(hidden, "b (steps k) dim -> b k steps dim", k=len(self.first_ids))

    @torch.no_grad()
    def sample(
        self, conditions: Int64[Tensor, "b m"], sampling: Sampling, generator: torch.Generator
    ) -> Int64[Tensor, " b *tokens"]:
        """Draw id after id."""
        b, k = len(conditions), len(self.first_ids)
        memory = self.network.new_memory()
        drawn = [conditions.new_full((b, 1), self.layout.begin_id)]
        inputs = torch.cat([conditions, *drawn], dim=1)
        for position, has_id in enumerate(self.has_id.T.flatten().tolist()):
            hidden = self.network(self.vocabulary(inputs), memory)[:, -1:]
            if has_id:
                ids = self.vocabulary.draw(hidden, position % k, sampling, generator)
                inputs = ids + self.first_ids[position % k]
            else:
                inputs = conditions.new_full((b, 1), self.layout.padding_id)
            drawn.append(inputs)
        token_ids = self.layout.to_token_ids(torch.cat(drawn, dim=1), self.flat_shape)
        return token_ids.reshape(b, *self.form.token_shape)

    def _sequence(self, token_ids: Int64[Tensor, " b *tokens"]) -> Int64[Tensor, "b length"]:
        return self.layout.to_sequence(token_ids.reshape(-1, *self.flat_shape))
