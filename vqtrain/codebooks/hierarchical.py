"""Two levels of codes: a coarse one for the whole, a fine one for what it leaves open."""

from collections.abc import Mapping
from typing import Annotated, final

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from vqtrain.codebooks.base import Codebook, Folded, Quantized
from vqtrain.codebooks.parts.inner import build_inner, fold_inner, mean_metrics
from vqtrain.codebooks.parts.lookup import ids_of
from vqtrain.errors import ConfigError, require
from vqtrain.layers.strided import strided_down, strided_up
from vqtrain.ranges import at_least, checked
from vqtrain.shapes import by

# Rows of half a grid's width that hold the ids of one row of the top level: its own, and those of
# the two rows of the bottom level below it, each as two.
ROWS = 5


@final
class Hierarchical(Codebook):
    """Quantizes latents at half their resolution, then in full, given what the first level says.

    The networks between both levels are part of it. Each level has a codebook of its own; the
    loss is the sum of theirs, and ``z_q`` has the codes of the top level, brought up, before those
    of the bottom level. The ids of an image are those of the top level, then those of the bottom
    level, each row by row, in rows of half the grid's width.

    Args:
        size: Ids of each level.
        channels: Channels of the latents and of the networks, at least 2.
        block_channels: Channels inside the residual blocks, at least 1.
        num_blocks: Residual blocks of each network, at least 0.
        inner: The codebook of a level: ``kind`` and its arguments, with ``size: null``.

    Raises:
        ConfigError: If a size is too small or the inner codebook does not fit.

    References:
        Razavi et al. 2019, arXiv:1906.00446, section 3.1 and algorithm 1. Deviation: two levels
        alone, with the networks of rosinality's vq-vae-2-pytorch.
    """

    grid_unit = 2

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(2)],
        block_channels: Annotated[int, at_least(1)],
        num_blocks: Annotated[int, at_least(0)],
        inner: Mapping[str, object],
    ) -> None:
        super().__init__()
        self.top, self.bottom = build_inner(inner, size), build_inner(inner, size)
        d = self.top.dim
        blocks = {"channels": channels, "block_channels": block_channels, "num_blocks": num_blocks}
        self.encoder_top = strided_down(in_channels=channels, num_downsamplings=1, **blocks)
        self.to_top = nn.Conv2d(channels, d, 1)
        self.decoder_top = strided_up(in_channels=d, out_channels=d, num_upsamplings=1, **blocks)
        self.to_bottom = nn.Conv2d(d + channels, d, 1)
        self.upsample_top = nn.ConvTranspose2d(d, d, kernel_size=4, stride=2, padding=1)
        self.channels = channels
        self.size, self.dim, self.num_codebooks = self.top.size, 2 * d, self.top.num_codebooks
        self.id_order = (
            "in rows of half the grid's width: the top level at half the resolution, row by row, "
            f"then the bottom level, row by row; each: {self.top.id_order}"
        )
        self.selection_rule = f"at each level: {self.top.selection_rule}"

    @property
    def in_channels(self) -> int:
        """Channels of the latents, which the networks between the levels take."""
        return self.channels

    def tokens(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return rows and columns of the ids of both levels, for a 2-D grid with even sides."""
        if len(grid) != 2 or any(n < 2 or n % 2 for n in grid):
            below = tuple(max(2, n // 2 * 2) for n in grid)
            above = tuple(max(2, -(-n // 2) * 2) for n in grid)
            nearest = by(below) if below == above else f"{by(below)} and {by(above)}"
            said = f", the nearest: {nearest}" if len(grid) == 2 else ""
            raise ConfigError(
                f"this codebook takes 2-D grids of latents with even sides, got {by(grid)}{said}"
            )
        return ROWS * grid[0] // 2, grid[1] // 2

    def grid(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return the grid of latents, given rows and columns of the ids of both levels."""
        require(
            len(tokens) == 2 and tokens[0] % ROWS == 0,
            f"the ids of both levels have {ROWS} n rows, got {by(tokens)}",
        )
        return 2 * tokens[0] // ROWS, 2 * tokens[1]

    def forward(self, z: Float[Tensor, "b d h w"]) -> Quantized:
        """Quantize the top level, then the bottom level."""
        rows, columns = self.tokens(tuple(z.shape[2:]))
        top = self.top(self.to_top(self.encoder_top(z)))
        bottom = self.bottom(self.joined(top.z_q, z))
        in_rows = bottom.token_ids.reshape(*bottom.token_ids.shape[:2], -1, columns)
        token_ids = torch.cat([top.token_ids, in_rows], dim=2)
        assert token_ids.shape[2] == rows, "the bottom level has four rows to one of the top level"
        return Quantized(
            z_q=self.put_together(top.z_q, bottom.z_q),
            token_ids=token_ids,
            loss=top.loss + bottom.loss,
            metrics=mean_metrics([top.metrics, bottom.metrics]),
        )

    def joined(
        self, top: Float[Tensor, "b c h_top w_top"], z: Float[Tensor, "b d h w"]
    ) -> Float[Tensor, "b c h w"]:
        """Return the latents of the bottom level, given the codes of the top level."""
        return self.to_bottom(torch.cat([self.decoder_top(top), z], dim=1))

    def put_together(
        self, top: Float[Tensor, "b c h_top w_top"], bottom: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b two_c h w"]:
        """Bring the codes of the top level up, and put those of the bottom level behind them."""
        # One memory layout in forward and decode: convolutions of another one round differently.
        up = self.upsample_top(top.clone(memory_format=torch.contiguous_format))
        return torch.cat([up, bottom], dim=1)

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c h w"]:
        """Look the codes of both levels up."""
        top, bottom = self.levels(ids_of(token_ids, self))
        return self.put_together(self.top.decode(top), self.bottom.decode(bottom))

    def levels(
        self, token_ids: Int64[Tensor, "b k *tokens"]
    ) -> tuple[Int64[Tensor, "b k h_top w_top"], Int64[Tensor, "b k h w"]]:
        """Return the ids of the top and of the bottom level, each on its grid.

        Raises:
            ConfigError: If their shape is not that of both levels.
        """
        height, width = self.grid(tuple(token_ids.shape[2:]))
        # Copied: of one image they would be flattened as they are, and a graph would see a rule.
        top, rest = (
            part.clone(memory_format=torch.contiguous_format)
            for part in (token_ids[:, :, : height // 2], token_ids[:, :, height // 2 :])
        )
        return top, rest.reshape(*token_ids.shape[:2], height, width)

    def id_grids(
        self, token_ids: Int64[Tensor, " k *tokens"]
    ) -> list[Int64[Tensor, "_rows _columns"]]:
        """Return the ids of one sample as grids to look at, the top level before the bottom."""
        return [grid for level in self.levels(token_ids[None]) for grid in level[0]]

    def folded(self, specification: Mapping[str, object]) -> Folded:
        """Fold the codebooks of both levels."""
        return fold_inner(self, specification)

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "b d h w"]) -> None:
        """Let each level start from its latents, the bottom level from those given the top's."""
        was_training = self.training
        self.eval()
        latents = self.to_top(self.encoder_top(z))
        self.top.initialize(latents)
        self.bottom.initialize(self.joined(self.top(latents).z_q, z))
        self.train(was_training)

    def update(self, step: int) -> Mapping[str, Tensor]:
        """Update the codebooks of both levels."""
        return mean_metrics([self.top.update(step), self.bottom.update(step)])
