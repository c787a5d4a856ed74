"""A transformer that predicts the ids of a scale at once, from those of all coarser scales."""

import copy
from typing import ClassVar, final

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain.codebooks.multiscale import MultiScale
from vqtrain.generation.base import Condition, TokenModel
from vqtrain.generation.form import TokenForm
from vqtrain.generation.network import INITIAL_STD, Network
from vqtrain.generation.sampling import Sampling
from vqtrain.generation.vocabulary import Vocabulary
from vqtrain.layers.frozen import Frozen
from vqtrain.ops.noise import SampleNoise
from vqtrain.ops.precision import without_autocast

MAX_MEASURED = 4096  # codes, which are enough to see how large they are


@final
class NextScale(TokenModel):
    """Predicts scale after scale of a multi-scale codebook, each at once, and the condition.

    What a position of a scale is given is the sum of the codes of all coarser scales, averaged down
    to that scale. It sees those of its own scale and of coarser ones. The ids of a scale are
    independent of each other, given the coarser ones, so their code length is exact.

    Args:
        form: Of the ids.
        condition: What is known of each sample; its values come first in the sequence.
        codebook: That the ids are of; a copy of it is kept, outside the model's weights.
        depth: Blocks of the transformer.
        dim: Its channels.

    References:
        Tian et al. 2024, arXiv:2404.02905, section 3.2. Deviation: the condition is a part of the
        sequence, not of the layer norms.
    """

    kind: ClassVar[str] = "next_scale"
    is_bound: ClassVar[bool] = False

    def __init__(
        self,
        *,
        form: TokenForm,
        condition: Condition,
        codebook: MultiScale,
        depth: int,
        dim: int,
    ) -> None:
        super().__init__()
        self.form, self.condition = form, condition
        codebook = copy.deepcopy(codebook).cpu()  # as the other weights are at first
        self.frozen = Frozen(codebook)
        self.sides = codebook.scales
        self.vocabulary = Vocabulary(form=form, before=condition.size, after=1, dim=dim)
        self.read_codes = nn.Linear(codebook.dim, dim)
        self.network = Network(
            depth=depth,
            dim=dim,
            groups=[
                *[0] * condition.length,
                *(number for number, side in enumerate(self.sides) for _ in range(side**2)),
            ],
        )
        # Codes of any size become as large as the other inputs at first.
        ids = torch.arange(min(form.size, MAX_MEASURED))
        codes = codebook.codebook.decode(ids[None, None]).detach()
        size = float(codes.square().mean().sqrt().clamp(min=1e-6))
        nn.init.normal_(self.read_codes.weight, std=INITIAL_STD / (size * codebook.dim**0.5))
        nn.init.zeros_(self.read_codes.bias)

    @property
    def flops(self) -> int:
        """Operations of one sample in training, without those of the codebook."""
        return 3 * (
            self.network.flops
            + self.vocabulary.flops(self.form.num_tokens)
            + 2 * (self.form.num_tokens - self.sides[0] ** 2) * self.read_codes.weight.numel()
        )

    def nats(
        self,
        token_ids: Int64[Tensor, "b n"],
        conditions: Int64[Tensor, "b m"],
        noise: SampleNoise,
    ) -> Float[Tensor, " b"]:
        """Return the code length of each sample."""
        del noise
        hidden = self.hidden(token_ids, conditions)
        return self.vocabulary.nats(hidden[:, None], token_ids[:, None]).sum(dim=(1, 2))

    def hidden(
        self, token_ids: Int64[Tensor, "b n"], conditions: Int64[Tensor, "b m"]
    ) -> Float[Tensor, "b n dim"]:
        """Return what the ids are predicted from."""
        inputs = [self._first(conditions)]
        total: Tensor | None = None
        scales = torch.split(token_ids, [side**2 for side in self.sides], dim=1)
        for number, ids in enumerate(scales[:-1]):
            total = self._added(total, ids, number)
            inputs.append(self._next(total, number + 1))
        return self.network(torch.cat(inputs, dim=1))[:, self.condition.length :]

    @torch.no_grad()
    def sample(
        self, conditions: Int64[Tensor, "b m"], sampling: Sampling, generator: torch.Generator
    ) -> Int64[Tensor, "b n"]:
        """Draw scale after scale."""
        memory = self.network.new_memory()
        inputs = self._first(conditions)
        total: Tensor | None = None
        drawn: list[Tensor] = []
        for number, side in enumerate(self.sides):
            hidden = self.network(inputs, memory)[:, -(side**2) :]
            drawn.append(self.vocabulary.draw(hidden, 0, sampling, generator))
            if number + 1 < len(self.sides):
                total = self._added(total, drawn[-1], number)
                inputs = self._next(total, number + 1)
        return torch.cat(drawn, dim=1)

    def _first(self, conditions: Int64[Tensor, "b m"]) -> Float[Tensor, "b first dim"]:
        """Return the condition and what stands in place of a coarser scale."""
        begin = self.condition.size + self.form.size
        values = conditions.new_full((len(conditions), self.sides[0] ** 2), begin)
        return self.vocabulary(torch.cat([conditions, values], dim=1))

    @torch.no_grad()
    def _added(
        self, total: Float[Tensor, "b c h w"] | None, ids: Int64[Tensor, "b n"], number: int
    ) -> Float[Tensor, "b c h w"]:
        """Add the codes of a scale to the sum of those of the coarser ones."""
        codebook = self.frozen.network
        with without_autocast(ids):
            grid = rearrange(ids, "b (h w) -> b 1 h w", h=self.sides[number])
            up = codebook.brought_up(codebook.codebook.decode(grid), number)
            return up if total is None else total + up

    def _next(self, total: Float[Tensor, "b c h w"], number: int) -> Float[Tensor, "b n dim"]:
        """Average the sum of codes down to a scale, as what it is predicted from."""
        pooled = F.adaptive_avg_pool2d(total, self.sides[number])
        return self.read_codes(
            rearrange(pooled, "b c h w -> b (h w) c").to(self.read_codes.weight.dtype)
        )
