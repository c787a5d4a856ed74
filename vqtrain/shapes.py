"""Names of axes and of the tensors they describe, as used in every signature.

Axes: ``b`` images in a batch, ``c`` channels, ``h w`` height and width, ``k`` codebooks (ids per
grid position), ``n`` vectors in a flat list, ``*grid`` the axes of the latents: ``h w`` for feature
maps, ``n`` for token lists.

Words: ``images`` are floats in [-1, 1]; ``pixels`` are uint8 in 0..255; ``z`` are latents, ``z_q``
quantized latents; ``token_ids`` are int64 in [0, codebook.size).
"""

from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

Images = Float[Tensor, "b c h w"]
Pixels = UInt8[Tensor, "b c h w"]
Latents = Float[Tensor, "b c *grid"]
TokenIds = Int64[Tensor, "b k *tokens"]
Mask = Bool[Tensor, " b"]
