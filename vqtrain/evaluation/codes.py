"""What single ids stand for: where they occur, next to which others, and what errors they make."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Float64, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

from vqtrain import distributed
from vqtrain.codebooks.base import Codebook
from vqtrain.shapes import Pixels

# More numbers than these are not kept, over all grids: counts of ids, of pairs of ids, of ids at a
# position, and ids whose nearest patches are remembered.
MOST_IDS, MOST_PAIRS, MOST_POSITIONS, MOST_PATCHED = 2**22, 2**22, 2**22, 2**16
# Patches of each id.
PATCHES = 4
# In the results: pairs and ids, and how often a pair must have occurred.
LISTED, LEAST = 8, 20
NEIGHBORS = ("left", "upper")


@final
@dataclass(frozen=True, kw_only=True)
class Patch:
    """A place in an image: its position in the index, and the position in the grid of ids."""

    image_id: int
    row: int
    column: int


@final
class CodeStatistics:
    """Adds up what ids do in the images of a pass, for each grid: of a codebook, or of a scale.

    Args:
        codebook: That the ids are of; it has some.
        device: Where it is added up.

    Attributes:
        token_shape: Of the ids of an image, codebooks first.
        grids: For each grid, which of the ids of an image it holds.
        is_spatial: Whether a token has a place in the image.
        left_out: What there are too many ids for, or no meaning, in words.
    """

    def __init__(self, codebook: Codebook, device: torch.device) -> None:
        self._codebook, self._device = codebook, device
        self.size = codebook.size
        self.grids: list[Int64[Tensor, "_ _"]] = []
        self.token_shape: tuple[int, ...] = ()
        self.is_spatial = False
        self.left_out: list[str] = []
        self._sums: dict[str, Tensor] = {}
        # Code, distance, image, and place in its grid of the nearest patches.
        self._patches: list[Tensor] = []

    @property
    def names(self) -> list[str]:
        """What the grids are called."""
        if len(self.grids) == 1:
            return ["ids"]
        if self._codebook.num_codebooks > 1:
            return [f"codebook {n}" for n in range(1, len(self.grids) + 1)]
        return [f"{grid.shape[0]} x {grid.shape[1]}" for grid in self.grids]

    def add(
        self,
        token_ids: Int64[Tensor, "b k *tokens"],
        original: Pixels,
        reconstruction: Pixels,
        distances: Float[Tensor, " b *grid"] | None,
        image_ids: Int64[Tensor, " b"],
    ) -> None:
        """Add images.

        Args:
            token_ids: Their ids.
            original: Their pixels.
            reconstruction: What became of them.
            distances: Between latents and what they were quantized to; None if there are none.
            image_ids: Their positions in the index.
        """
        if not self.grids:
            self._begin(token_ids.shape[1:], has_distances=distances is not None)
        if not self.has_counts:
            return
        flat = token_ids.flatten(1)
        errors = (original.int() - reconstruction.int()).square().sum(1, dtype=torch.int32)
        for number, grid in enumerate(self.grids):
            ids = flat[:, grid]
            self._count("ids", number, ids)
            if "positions" in self._sums:
                first = sum(each.numel() for each in self.grids[:number])
                places = torch.arange(grid.numel(), device=ids.device).view_as(grid) + first
                self._count("positions", 0, places * self.size + ids)
            if "left" in self._sums:
                for name, (one, other) in zip(
                    NEIGHBORS,
                    ((ids[:, :, 1:], ids[:, :, :-1]), (ids[:, 1:], ids[:, :-1])),
                    strict=True,
                ):
                    self._count(name, number, one * self.size + other)
            if "errors" in self._sums:
                self._count("errors", number, ids, sums_in(errors, grid.shape))
        if self._patches and distances is not None:
            self._add_patches(flat, distances, image_ids)

    def _begin(self, shape: Sequence[int], *, has_distances: bool) -> None:
        places = torch.arange(math.prod(shape), device=self._device).view(*shape)
        self.token_shape, self.grids = tuple(shape), self._codebook.id_grids(places)
        self.is_spatial = bool(self._codebook.token_grids) or len(shape) == 3
        number, size = len(self.grids), self.size
        tokens, parts = places.numel(), self._sums
        if not self.is_spatial:
            self.left_out.append(
                "neighbors, errors and pictures of single ids: tokens of a sequence have no place "
                "in the image"
            )
        if number * size > MOST_IDS:
            self.left_out.append(f"what single ids do: {number * size:,} are too many")
            return
        parts["ids"] = self._zeros(number * size)
        if tokens * size <= MOST_POSITIONS:
            parts["positions"] = self._zeros(tokens * size)
        else:
            self.left_out.append(f"ids by position: {tokens:,} x {size:,} counts are too many")
        if not self.is_spatial:
            return
        parts["errors"] = self._zeros(number * size).double()
        if number * size**2 <= MOST_PAIRS:
            parts |= {name: self._zeros(number * size**2) for name in NEIGHBORS}
        else:
            self.left_out.append(f"neighbors: {number:,} x {size:,}^2 pairs of ids are too many")
        if not has_distances:
            self.left_out.append("nearest patches: latents are scored, and have no distance")
        elif number * size <= MOST_PATCHED:
            self._patches = [
                self._zeros(0),
                self._zeros(0).double(),
                self._zeros(0),
                self._zeros(0),
            ]
        else:
            self.left_out.append(f"nearest patches: {number * size:,} ids are too many")

    def _zeros(self, count: int) -> Int64[Tensor, " n"]:
        return torch.zeros(count, dtype=torch.int64, device=self._device)

    def _count(
        self, name: str, grid: int, ids: Int64[Tensor, "..."], weights: Tensor | None = None
    ) -> None:
        total = self._sums[name]
        part = total.view(-1) if name == "positions" else total.view(len(self.grids), -1)[grid]
        flat = ids.flatten()
        added = torch.ones_like(flat) if weights is None else weights.flatten()
        part.scatter_add_(0, flat, added.to(part.dtype))

    def _add_patches(
        self,
        flat: Int64[Tensor, "b n"],
        distances: Float[Tensor, " b *grid"],
        image_ids: Int64[Tensor, " b"],
    ) -> None:
        found = [self._patches]
        for number, grid in enumerate(self.grids):
            rows, columns = grid.shape
            near = F.adaptive_avg_pool2d(distances.double(), (rows, columns)).flatten()
            codes = (flat[:, grid] + number * self.size).flatten()
            images = image_ids[:, None].expand(-1, grid.numel()).flatten()
            places = torch.arange(grid.numel(), device=codes.device).repeat(len(image_ids))
            found.append([codes, near, images, places])
        self._patches = nearest_of(found)

    def reduce(self) -> None:
        """Replace all by what all ranks have added; collective."""
        self._sums = {name: distributed.all_reduce_sum(each) for name, each in self._sums.items()}
        if self._patches:
            own = [each.cpu() for each in self._patches]
            self._patches = nearest_of(distributed.all_gather_lists([own]))

    def counts(self) -> Int64[Tensor, "grids size"]:
        """Return how often each id occurs in each grid."""
        return self._sums["ids"].view(len(self.grids), -1).cpu()

    def patches(self, grid: int, code: int) -> list[Patch]:
        """Return the patches nearest to a code."""
        columns = self.grids[grid].shape[1]
        if not self._patches:
            return []
        codes, _, images, places = (each.cpu() for each in self._patches)
        return [
            Patch(image_id=int(image), row=int(place) // columns, column=int(place) % columns)
            for image, place in zip(
                *(each[codes == grid * self.size + code] for each in (images, places)), strict=True
            )
        ]

    def describe(self) -> dict[str, object]:
        """Return what was found, as plain data."""
        if not self.has_counts:
            return {"grids": [], "left_out": self.left_out}
        at_positions = self.position_entropies()
        grids = zip(self.names, self.grids, strict=True)
        return {
            "grids": [
                {
                    "name": name,
                    "shape": list(grid.shape),
                    "position_entropy_bits": (
                        at_positions[number].tolist() if at_positions else None
                    ),
                    **self._neighbors(number),
                    "worst_ids": self._worst(number),
                }
                for number, (name, grid) in enumerate(grids)
            ],
            "left_out": self.left_out,
        }

    @property
    def has_counts(self) -> bool:
        """Whether ids were counted."""
        return "ids" in self._sums

    def position_entropies(self) -> list[Float64[Tensor, "_ _"]]:
        """Return the entropy of the ids at each position of each grid, in bits, if it is known."""
        if "positions" not in self._sums:
            return []
        values = entropies(self._sums["positions"].view(-1, self.size)).cpu()
        parts = torch.split(values, [grid.numel() for grid in self.grids])
        return [part.view(grid.shape) for part, grid in zip(parts, self.grids, strict=True)]

    def _neighbors(self, number: int) -> dict[str, object]:
        found: dict[str, object] = {}
        pairs: list[dict[str, object]] = []
        for name in NEIGHBORS if "left" in self._sums else ():
            joint = self._sums[name].view(len(self.grids), self.size, self.size)[number].cpu()
            if not joint.any():
                continue
            found[name] = {
                "mutual_information_bits": mutual_information_bits(joint),
                "by_chance_bits": mutual_information_bits(shuffled(joint)),
            }
            pairs += [{"neighbor": name, **pair} for pair in strongest_pairs(joint)]
        pairs.sort(key=lambda pair: -float(str(pair["bits"])))
        return {**found, "pairs": pairs[:LISTED]}

    def _worst(self, number: int) -> list[dict[str, object]]:
        if "errors" not in self._sums:
            return []
        errors = self._sums["errors"].view(len(self.grids), -1)[number].cpu()
        counts = self.counts()[number]
        order = errors.argsort(descending=True, stable=True)[:LISTED].tolist()
        total = float(errors.sum())
        return [
            {
                "id": code,
                "share_of_tokens": int(counts[code]) / int(counts.sum()),
                "share_of_error": float(errors[code]) / total,
            }
            for code in order
            if errors[code] > 0
        ]


def sums_in(
    errors: Int32[Tensor, "b h w"], grid: Sequence[int]
) -> Float64[Tensor, "b rows columns"]:
    """Add errors of pixels up in the cells of a grid, those across a border by their shares."""
    rows, columns = grid
    height, width = errors.shape[1:]
    if height % rows == 0 and width % columns == 0:
        cells = rearrange(errors, "b (r h) (c w) -> b r h c w", r=rows, c=columns)
        return cells.sum((2, 4)).double()
    vertical, horizontal = (
        overlaps(*each).to(errors.device) for each in ((rows, height), (columns, width))
    )
    return torch.einsum("rh,bhw,cw->brc", vertical, errors.double(), horizontal)


def overlaps(cells: int, size: int) -> Float64[Tensor, "cells size"]:
    """Return how much of each pixel along an axis lies in each of so many equal cells.

    Example:
        >>> overlaps(2, 3).tolist()
        [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]
    """
    borders = torch.arange(cells + 1, dtype=torch.float64) * size / cells
    pixels = torch.arange(size, dtype=torch.float64)
    ends = torch.minimum(borders[1:, None], pixels + 1)
    return (ends - torch.maximum(borders[:-1, None], pixels)).clamp(min=0)


def nearest_of(found: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Join lists of codes, distances, images and places, and keep the nearest of each code."""
    codes, distances, *others = (torch.cat(each) for each in zip(*found, strict=True))
    order = distances.argsort(stable=True)
    order = order[codes[order].argsort(stable=True)]
    codes = codes[order]
    place = torch.arange(len(codes), device=codes.device) - torch.searchsorted(codes, codes)
    kept = order[place < PATCHES]
    return [codes[place < PATCHES], *(each[kept] for each in (distances, *others))]


def mutual_information_bits(joint: Int64[Tensor, "size size"]) -> float:
    """Return how much two ids say about each other, from counts of pairs, in bits.

    Example:
        >>> mutual_information_bits(torch.tensor([[2, 0], [0, 2]]))
        1.0
    """
    both = entropies(joint.sum(0)) + entropies(joint.sum(1)) - entropies(joint.flatten())
    return max(0.0, float(both))


def shuffled(joint: Int64[Tensor, "size size"]) -> Int64[Tensor, "size size"]:
    """Draw as many pairs of ids that are as frequent as these, and independent."""
    generator, count = torch.Generator().manual_seed(0), int(joint.sum())
    one, other = (
        torch.multinomial(joint.sum(axis).double(), count, replacement=True, generator=generator)
        for axis in (1, 0)
    )
    pairs = torch.bincount(one * len(joint) + other, minlength=joint.numel())
    return pairs.view_as(joint)


def strongest_pairs(joint: Int64[Tensor, "size size"]) -> list[dict[str, object]]:
    """List the pairs that occur together most often, against chance; rare ones do not count.

    Their bits are the pointwise mutual information: the log2 of how much more often.
    """
    total = joint.sum().double()
    chance = joint.sum(1).double()[:, None] * joint.sum(0).double() / total
    bits = torch.where(joint >= LEAST, (joint / chance).log2(), -math.inf)
    best = bits.flatten().topk(min(LISTED, bits.numel()))
    return [
        {
            "id": place // len(joint),
            "neighbor_id": place % len(joint),
            "count": int(joint.view(-1)[place]),
            "bits": value,
        }
        for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if value > 0
    ]


def entropies(counts: Int64[Tensor, "*rows n"]) -> Float64[Tensor, "*rows"]:
    """Return the entropy of each row of counts, in bits."""
    shares = counts.double() / counts.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(shares).sum(-1) / math.log(2)


def distances_of(
    codebook: Codebook, latents: Float[Tensor, "b d *grid"], z_q: Float[Tensor, "b c *grid"]
) -> Float[Tensor, " b *grid"] | None:
    """Return how far latents are from what they were quantized to; None if they are scored."""
    if latents.shape[1] != z_q.shape[1]:
        return None
    z = F.normalize(latents, dim=1) if getattr(codebook, "l2_normalize", False) else latents
    return (z.float() - z_q.float()).square().sum(1)
