"""A transformer that predicts hidden ids from all others."""

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

STEPS = 16  # of sampling, unless there are fewer ids
CHOICE_TEMPERATURE = 4.5  # how much chance there is in which ids are kept at first


@final
class Masked(TokenModel):
    """Predicts ids behind a mask from all ids that are not, and the condition.

    Training masks a share cos(pi u / 2) of the ids, with u uniform in [0, 1). ``nats`` masks m of n
    ids, m uniform from 1 to n, and counts what they cost n / m times. Its mean over masks is that
    of the code length over all orders in which ids can be predicted one by one. This is an upper
    bound of the code length of the model that predicts them in an order drawn at random.

    Sampling begins with masks alone. Of the ids that it draws at once it keeps those of the largest
    probability, with noise that falls to 0, and as many as the cosine says.

    Args:
        form: Of the ids; those of several codebooks or scales are tokens of their own.
        condition: What is known of each sample; its values come first in the sequence.
        depth: Blocks of the transformer.
        dim: Its channels.

    References:
        Chang et al. 2022, arXiv:2202.04200, section 3: training and sampling. Deviation: no label
        smoothing. Hoogeboom et al. 2021, arXiv:2110.02037, equation 5: the bound.
    """

    kind: ClassVar[str] = "masked"
    is_bound: ClassVar[bool] = True

    def __init__(self, *, form: TokenForm, condition: Condition, depth: int, dim: int) -> None:
        super().__init__()
        k, n = form.num_codebooks, form.num_tokens
        self.form, self.condition = form, condition
        self.mask_id = condition.size + k * form.size
        self.first_ids: Int64[Tensor, " n"]
        first_ids = condition.size + form.size * torch.arange(k).repeat_interleave(n // k)
        self.register_buffer("first_ids", first_ids, False)
        self.vocabulary = Vocabulary(form=form, before=condition.size, after=1, dim=dim)
        self.network = Network(depth=depth, dim=dim, groups=[0] * (condition.length + n))

    @property
    def flops(self) -> int:
        """Operations of one sample in training."""
        return 3 * (self.network.flops + self.vocabulary.flops(self.form.num_tokens))

    def loss(
        self,
        token_ids: Int64[Tensor, " b *tokens"],
        conditions: Int64[Tensor, "b m"],
        noise: SampleNoise,
    ) -> Float[Tensor, " b"]:
        """Return what an id behind the mask costs, as a mean."""
        flat, n = token_ids.flatten(1), self.form.num_tokens
        shares = (noise.uniform_per_sample(torch.zeros(flat.shape)) * (math.pi / 2)).cos()
        counts = (shares * n).ceil().clamp(min=1)
        return self._masked_nats(flat, conditions, counts, noise)

    def nats(
        self,
        token_ids: Int64[Tensor, " b *tokens"],
        conditions: Int64[Tensor, "b m"],
        noise: SampleNoise,
    ) -> Float[Tensor, " b"]:
        """Return a random number for each sample, whose mean is not below its code length."""
        flat, n = token_ids.flatten(1), self.form.num_tokens
        counts = (noise.uniform_per_sample(torch.zeros(flat.shape)) * n).floor() + 1
        return n * self._masked_nats(flat, conditions, counts, noise)

    @torch.no_grad()
    def sample(
        self, conditions: Int64[Tensor, "b m"], sampling: Sampling, generator: torch.Generator
    ) -> Int64[Tensor, " b *tokens"]:
        """Draw ids in a few steps."""
        b, n, k = len(conditions), self.form.num_tokens, self.form.num_codebooks
        ids = conditions.new_zeros(b, n)
        is_masked = torch.ones_like(ids, dtype=torch.bool)
        steps = min(STEPS, n)
        for step in range(1, steps + 1):
            hidden = self.hidden(ids, conditions, is_masked)
            drawn = torch.stack(
                [self.vocabulary.draw(hidden[:, i], i, sampling, generator) for i in range(k)],
                dim=1,
            )
            ids = drawn.flatten(1).where(is_masked, ids)
            # As many ids are masked in all samples.
            left = min(int(n * math.cos(math.pi / 2 * step / steps)), n - step)
            chosen = -self.vocabulary.nats(hidden, drawn).flatten(1)
            if not sampling.is_greedy:
                share = CHOICE_TEMPERATURE * sampling.temperature * (1 - step / steps)
                exponential = torch.empty(b, n, device=generator.device)
                exponential.exponential_(generator=generator)
                chosen = chosen - share * exponential.to(chosen.device).log()
            chosen = chosen.where(is_masked, torch.inf)
            least = chosen.topk(left, dim=-1, largest=False).indices
            is_masked = torch.zeros_like(is_masked).scatter(-1, least, True)
        return ids.reshape(b, *self.form.token_shape)

    def hidden(
        self,
        flat: Int64[Tensor, "b n"],
        conditions: Int64[Tensor, "b m"],
        is_masked: Bool[Tensor, "b n"],
    ) -> Float[Tensor, "b k each dim"]:
        """Return what the ids of each codebook are predicted from."""
        inputs = torch.cat(
            [conditions, (flat + self.first_ids).masked_fill(is_masked, self.mask_id)], dim=1
        )
        hidden = self.network(self.vocabulary(inputs))[:, conditions.shape[1] :]
        return rearrange(hidden, "b (k n) dim -> b k n dim", k=self.form.num_codebooks)

    def _masked_nats(
        self,
        flat: Int64[Tensor, "b n"],
        conditions: Int64[Tensor, "b m"],
        counts: Float[Tensor, "b 1"],
        noise: SampleNoise,
    ) -> Float[Tensor, " b"]:
        """Mask so many ids of each sample, and return what they cost, as a mean."""
        is_masked = masks(counts, noise, self.form.num_tokens).to(flat.device)
        own = rearrange(flat, "b (k n) -> b k n", k=self.form.num_codebooks)
        nats = self.vocabulary.nats(self.hidden(flat, conditions, is_masked), own)
        return nats.flatten(1).where(is_masked, 0).sum(dim=1) / is_masked.sum(dim=1)


def masks(counts: Float[Tensor, "b 1"], noise: SampleNoise, n: int) -> Bool[Tensor, "b n"]:
    """Mask so many of n ids of each sample, any of them with the same probability.

    Both are drawn on the CPU, so that all devices mask the same.
    """
    places = noise.uniform(torch.zeros(len(counts), n), 2)
    return places.argsort(dim=1).argsort(dim=1) < counts
