"""Codes replaced by others near them."""

from typing import Annotated, final

from jaxtyping import Float, Int64
from torch import Tensor

from vqtrain.latent_noise.base import LatentNoise
from vqtrain.ops.neighbors import nearest_codes
from vqtrain.ops.noise import SampleNoise
from vqtrain.ranges import at_least, checked, within


@final
class NearestCodes(LatentNoise):
    """Replaces codes by one of those nearest to them, as a generator that is nearly right does.

    Args:
        share: Probability that a sample is changed, in [0, 1].
        probability: That a token of such a sample is changed, in [0, 1], at step 0.
        neighbors: Codes from which the new one is drawn, at least 1, at step 0; the nearest is the
            code itself.
        decay_steps: Steps over which ``probability`` falls to 0 and ``neighbors`` to 1, at least 1.

    Raises:
        ConfigError: If a value is out of range.

    References:
        Qiu et al. 2025, arXiv:2503.08354 (RobustTok), section 4 and its code. Deviation: each
        sample is drawn by itself, there it is the first ones of a batch.
    """

    needs_codes = True

    @checked
    def __init__(
        self,
        *,
        share: Annotated[float, within(0, 1)],
        probability: Annotated[float, within(0, 1)],
        neighbors: Annotated[int, at_least(1)],
        decay_steps: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        self.share, self.probability = share, probability
        self.neighbors, self.decay_steps = neighbors, decay_steps

    def change(
        self,
        z_q: Float[Tensor, "b c *grid"],
        token_ids: Int64[Tensor, "b k *tokens"],
        codes: Float[Tensor, "size c"] | None,
        noise: SampleNoise,
    ) -> Float[Tensor, "b c *grid"]:
        """Replace codes; the gradient goes to the latents as if they were the same."""
        assert codes is not None, "it declares that it needs them"
        left = max(0.0, 1 - self.step / self.decay_steps)
        count = min(max(1, round(self.neighbors * left)), len(codes))
        if left == 0 or count == 1:
            return z_q
        ids = token_ids.flatten(1)
        draws = noise.uniform(z_q.new_zeros(*ids.shape, 2), 0)
        is_drawn = noise.uniform_per_sample(draws[..., 0]) < self.share
        is_changed = is_drawn & (draws[..., 0] < self.probability * left)
        chosen = ids[is_changed]
        if len(chosen) == 0:
            return z_q
        rank = (draws[..., 1][is_changed] * count).long()
        nearest = nearest_codes(chosen, codes, count)
        new = nearest.gather(1, rank[:, None])[:, 0]
        moved = z_q.new_zeros(*ids.shape, codes.shape[1])
        moved[is_changed] = (codes[new] - codes[chosen]).to(moved.dtype)
        return z_q + moved.movedim(-1, 1).reshape(z_q.shape)
