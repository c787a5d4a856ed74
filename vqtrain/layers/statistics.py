"""What a step adds up about a codebook: how often each code won, and which vectors it won."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vqtrain import distributed


class CodeStatistics(nn.Module):
    """Counts and sums per code over the batches of one step, reduced over ranks at its end.

    Memory is one count and two vectors per code, and a reference to the vectors of the step, which
    serve as a pool for restarts. Nothing of it is stored in a checkpoint: checkpoints are written
    between steps, when it is empty.

    Args:
        size: Number of codes.
        dim: Channels of a code.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, *, size: int, dim: int) -> None:
        super().__init__()
        # float32 counts are exact up to 2^24 hits of one code in one step.
        self.register_buffer("counts", torch.zeros(size), persistent=False)
        self.register_buffer("sums", torch.zeros(size, dim), persistent=False)
        self.pool: list[Tensor] = []

    @torch.no_grad()
    def add(self, z: Float[Tensor, "n d"], ids: Int64[Tensor, " n"]) -> None:
        """Add the vectors of one batch and the codes that they chose."""
        self.counts += torch.bincount(ids, minlength=self.counts.shape[0])
        self.sums.index_add_(0, ids, z.to(self.sums.dtype))
        self.pool.append(z.detach())

    @torch.no_grad()
    def collect(
        self,
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, "k d"], Float[Tensor, "k d"]]:
        """Reduce over ranks and clear.

        Returns:
            The counts and sums of the step over all ranks, and for each code one vector that was
            drawn from all vectors of the step, for a restart of that code.
        """
        mine = torch.cat([self.counts[:, None], self.sums, self.draw()], dim=1)
        total = distributed.all_reduce_sum(mine)
        dim = self.sums.shape[1]
        self.clear()
        return total[:, 0], total[:, 1 : 1 + dim], total[:, 1 + dim :]

    def clear(self) -> None:
        """Forget what was added since the last ``collect``, as after a step that was skipped."""
        self.counts.zero_()
        self.sums.zero_()
        self.pool.clear()

    def draw(self) -> Float[Tensor, "k d"]:
        """Draw one vector per code from those of all ranks; a vector of another rank is zero here.

        The draw counts positions in the order of the data (batch, then rank, then vector), so that
        neither accumulation nor the number of ranks changes which vector is drawn, and the sum
        over ranks brings it to all of them without gathering the pool.
        """
        drawn = torch.zeros_like(self.sums)
        per_batch, world = self.pool[0].shape[0], distributed.world_size()
        positions = draw_positions(per_batch * world * len(self.pool), drawn.shape[0])
        batch, within = positions // (per_batch * world), positions % (per_batch * world)
        owner, vector = within // per_batch, within % per_batch
        is_mine = (owner == distributed.rank()).to(drawn.device)
        vectors = torch.cat(self.pool)[(batch * per_batch + vector).to(drawn.device)]
        return torch.where(is_mine[:, None], vectors.to(drawn.dtype), drawn)


def draw_positions(available: int, wanted: int) -> Int64[Tensor, " wanted"]:
    """Draw positions below ``available`` from torch's global CPU generator.

    No position comes twice before every other came once.
    """
    rounds = -(-wanted // available)
    return torch.cat([torch.randperm(available) for _ in range(rounds)])[:wanted]


@torch.no_grad()
def draw_codes(z: Float[Tensor, "n d"], size: int) -> Float[Tensor, "size d"]:
    """Draw ``size`` codes from vectors of the data, the same on every rank that has the same z.

    Where there are fewer vectors than codes, those that come again are moved apart by noise of
    1 % of the data's standard deviation, since of two equal codes only one is ever chosen.
    """
    codes = z[draw_positions(z.shape[0], size).to(z.device)].clone()
    repeated = codes[z.shape[0] :]
    noise = torch.randn(repeated.shape, dtype=torch.float64).to(z)
    repeated += 0.01 * z.std() * noise
    return codes
