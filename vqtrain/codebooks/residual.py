"""Residual quantization: each codebook quantizes what those before it have left."""

from collections.abc import Mapping
from typing import Annotated, cast, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vqtrain.codebooks.base import Codebook, Folded, Quantized
from vqtrain.codebooks.parts.inner import build_inner, fold_inner, mean_metrics
from vqtrain.codebooks.parts.lookup import ids_of
from vqtrain.errors import require
from vqtrain.ops.seeds import seed_for
from vqtrain.ranges import above, at_least, checked


@final
class Residual(Codebook):
    """Adds up codes: the first one for the vector, the next one for the rest, and so on.

    What is subtracted is held constant, so every depth moves the latents towards its codes.
    The decoder's gradient passes through the depths in equal parts; where each passes it straight
    through, so does the whole. The loss is the mean of theirs.

    Args:
        size: Ids of each depth.
        num_codebooks: Depths, at least 1.
        shared: Whether all depths use one codebook.
        shrink: The codes of each depth are this much smaller than those before, above 0: 1 for
            tables, which learn it, and less for codes that stand before the data, such as signs.
        inner: The codebook of a depth: ``kind`` and its arguments, with ``size: null``.
        quantizer_dropout: Whether the decoder gets, at each step of training, the codes of the
            first n depths alone, for an n that is drawn evenly from all depths, one for the whole
            step. Then any number of first depths decodes.

    Raises:
        ConfigError: If the inner codebook cannot be built, has no ids at each position, or learns
            from the decoder alone, which with ``quantizer_dropout`` not all depths would hear of.

    References:
        Lee et al. 2022, arXiv:2203.01941, section 3.1. Deviation: none; the commitment to the sums
        of codes is the commitment of each rest to its own code.
        Zeghidour et al. 2021, arXiv:2107.03312 (SoundStream), section III.C: the dropout.
        Deviation: depths that the decoder does not get learn all the same.
    """

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)],
        num_codebooks: Annotated[int, at_least(1)],
        shared: bool,
        shrink: Annotated[float, above(0)],
        inner: Mapping[str, object],
        quantizer_dropout: bool = False,
    ) -> None:
        super().__init__()
        tables, calls = (1, num_codebooks) if shared else (num_codebooks, 1)
        built = [build_inner(inner, size, calls=calls) for _ in range(tables)]
        first = built[0]
        require(
            not (quantizer_dropout and first.learns_from_decoder),
            f"inner.kind={inner['kind']} learns from the decoder alone, and with quantizer_dropout "
            "that does not get all depths",
        )
        self.levels = nn.ModuleList(built)
        self.depth, self.shrink = num_codebooks, shrink
        self.quantizer_dropout, self.decoded_depths = quantizer_dropout, num_codebooks
        self.nested = first.num_codebooks == 1
        self.size, self.dim = first.size, first.dim
        self.num_codebooks = num_codebooks * first.num_codebooks
        self.initial_std = first.initial_std
        self.initial_whitening = first.initial_whitening
        self.id_order = f"by depth, coarse to fine; each: {first.id_order}"
        self.selection_rule = f"of the rest, depth after depth: {first.selection_rule}"

    def at(self, depth: int) -> Codebook:
        """Return the codebook of a depth."""
        return cast(Codebook, self.levels[depth % len(self.levels)])

    def begin_step(self, step: int, seed: int) -> None:
        """Draw how many depths the decoder gets, the same number on all ranks."""
        super().begin_step(step, seed)
        if self.quantizer_dropout:
            generator = torch.Generator().manual_seed(seed_for(seed, "quantizer_dropout", step))
            self.decoded_depths = 1 + int(torch.randint(self.depth, (), generator=generator))

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Quantize depth after depth."""
        found = [self.at(0)(z)]
        # With the memory layout of decode: convolutions of another one round differently.
        total = found[0].z_q
        sums = [total]
        for depth in range(1, self.depth):
            scale = self.shrink**depth
            found.append(self.at(depth)((z - total.detach()) / scale))
            total = total + found[-1].z_q * scale
            sums.append(total)
        depths = self.decoded_depths if self.training else self.depth
        decoded = sums[depths - 1]
        return Quantized(
            z_q=decoded.detach() + (decoded - decoded.detach()) / depths,
            token_ids=torch.cat([quantized.token_ids for quantized in found], dim=1),
            loss=torch.stack([quantized.loss for quantized in found]).mean(),
            metrics={
                **mean_metrics([quantized.metrics for quantized in found]),
                "distance": (z - total).detach().square().mean(),
            },
        )

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Add the codes of all depths up, or of the first ones, if there are no others."""
        own = ids_of(token_ids, self)
        first, *others = torch.split(own, self.at(0).num_codebooks, dim=1)
        total = self.at(0).decode(first)
        for depth, ids in enumerate(others, start=1):
            total = total + self.at(depth).decode(ids) * self.shrink**depth
        return total

    def folded(self, specification: Mapping[str, object]) -> Folded:
        """Fold the codebook of each depth."""
        return fold_inner(self, specification)

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "b c *grid"]) -> None:
        """Let each depth start from what those before it leave; a shared one from the latents."""
        was_training = self.training
        self.eval()
        rest = z
        for depth in range(len(self.levels)):
            scale = self.shrink**depth
            self.at(depth).initialize(rest / scale)
            rest = rest - self.at(depth)(rest / scale).z_q * scale
        self.train(was_training)

    def update(self, step: int) -> Mapping[str, Tensor]:
        """Update the codebook of each depth."""
        return mean_metrics([cast(Codebook, level).update(step) for level in self.levels])
