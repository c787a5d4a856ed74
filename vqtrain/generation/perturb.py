"""Ids replaced by near ones, as by a model that is nearly right."""

from typing import final

import torch
from jaxtyping import Int64
from torch import Tensor

from vqtrain.codebooks.base import Codebook, leaves
from vqtrain.errors import require
from vqtrain.ops.neighbors import nearest_codes
from vqtrain.ops.noise import SampleNoise
from vqtrain.tokenizer.model import Tokenizer


@final
class Perturbation:
    """Replaces ids by others whose codes are near.

    Codes are compared within the codebook that an id is of: that of its depth, group or level. Of
    computed codes, as those of ``fsq`` and ``lfq``, many are equally far; which of them count is
    open, but always the same. The near ids of each id are found when they are first needed.

    Args:
        tokenizer: The tokenizer.
        neighbors: Other ids from which the new one is drawn, at least 1; all of them where there
            are fewer.

    Raises:
        ConfigError: If there are no other ids, or too many to list.

    References:
        Qiu et al. 2025, arXiv:2503.08354, section 4: the perturbed FID (pFID) of images decoded
        from such ids. Deviation: a new id is never the old one.
    """

    def __init__(self, tokenizer: Tokenizer, *, neighbors: int) -> None:
        vectors, size = tokenizer.codebook_vectors, tokenizer.vocab_size
        require(size > 1, "a codebook of one id has no near ids to replace it by")
        require(neighbors >= 1, f"neighbors must be at least 1, got {neighbors}")
        if vectors.device.type == "mps":  # it has no float64
            vectors = vectors.cpu()
        self._codes = vectors.view(-1, *vectors.shape[-2:]).double()
        self._codebook, self._order = tokenizer.codebook, _order(tokenizer.codebook)
        self._count = min(neighbors, size - 1)
        self._near = torch.full(
            (len(self._codes) * size, self._count), -1, device=self._codes.device
        )

    def __call__(
        self, token_ids: Int64[Tensor, "b k *tokens"], *, share: float, noise: SampleNoise
    ) -> Int64[Tensor, "b k *tokens"]:
        """Replace each id with a probability by one of its near ids, all equally likely.

        Args:
            token_ids: The ids of samples.
            share: The probability, in [0, 1].
            noise: Of the samples.
        """
        ids = token_ids.flatten(1)
        draws = noise.uniform(torch.empty(*ids.shape, 2, device=ids.device), 0)
        is_new = draws[..., 0] < share
        rank = (draws[..., 1][is_new] * self._count).long()
        codebook = self._codebooks(token_ids[0]).to(ids.device).expand_as(ids)
        near = self._find(
            codebook[is_new].to(self._codes.device), ids[is_new].to(self._codes.device)
        )
        changed = ids.clone()
        changed[is_new] = near.to(ids.device).gather(1, rank[:, None])[:, 0]
        return changed.reshape(token_ids.shape)

    def _find(
        self, codebook: Int64[Tensor, " n"], ids: Int64[Tensor, " n"]
    ) -> Int64[Tensor, "n count"]:
        """Return the near ids of ids of some codebooks, from near to far."""
        size = self._codes.shape[1]
        rows = codebook * size + ids
        wanted = rows.bincount(minlength=len(self._near)).nonzero()[:, 0]
        missing = wanted[self._near[wanted, 0] < 0]
        for number, codes in enumerate(self._codes):
            own = missing[missing // size == number]
            self._near[own] = nearest_codes(own % size, codes, self._count + 1)[:, 1:]
        return self._near[rows]

    def _codebooks(self, token_ids: Int64[Tensor, " k *tokens"]) -> Int64[Tensor, " n"]:
        """Return which table of codes each id of a sample is of."""
        places = torch.arange(token_ids.numel()).reshape(token_ids.shape)
        grids = self._codebook.id_grids(places)
        order = self._order * (len(grids) // len(self._order))
        require(
            len(order) == len(grids),
            f"ids on {len(grids)} grids cannot be told apart by {len(self._order)} codebooks",
        )
        numbers = torch.empty(token_ids.numel(), dtype=torch.int64)
        for number, grid in zip(order, grids, strict=True):
            numbers[grid.flatten()] = number
        return numbers


def _order(codebook: Codebook) -> list[int]:
    """Return the number among the leaves of a codebook that each of its own codebooks has."""
    order, first = [], 0
    for each in codebook.inner_codebooks().values():
        own = _order(each)
        order += [first + number for number in own * (each.num_codebooks // len(own))]
        first += len(leaves(each))
    return order or [0]
