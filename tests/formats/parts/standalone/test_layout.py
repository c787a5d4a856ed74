"""Our ``rearrange`` against that of einops."""

import einops
import pytest
import torch

from vqtrain.formats.parts.standalone.layout import rearrange

CASES = [
    ("b (p q c) h w -> b c (h p) (w q)", (2, 12, 3, 5), {"p": 2, "q": 2}),
    ("b c (t o) (r p) (s q) -> b (c o p q) t r s", (2, 3, 4, 4, 6), {"o": 2, "p": 2, "q": 3}),
    ("b (c o p q) t r s -> b c (t o) (r p) (s q)", (2, 24, 2, 3, 4), {"o": 2, "p": 2, "q": 2}),
    ("b (rows columns) d -> b d rows columns", (2, 12, 5), {"rows": 3}),
    ("b ... c -> b c ...", (2, 3, 4, 5, 6), {}),
    ("b c ... -> (b ...) c", (2, 3, 4, 5), {}),
    ("b c ... -> (b ...) c", (2, 3), {}),
    ("b 1 (h w) c -> b c h w", (2, 1, 12, 5), {"h": 3, "w": 4}),
    ("b c h w -> b 1 (h w) c", (2, 5, 3, 4), {}),
    ("b n (three h d) -> three b h n d", (2, 5, 24), {"three": 3, "h": 2}),
    ("two b t c -> two b c t 1 1", (2, 3, 4, 5), {}),
]


@pytest.mark.parametrize(("pattern", "shape", "sizes"), CASES)
def test_axes_go_where_einops_puts_them(
    pattern: str, shape: tuple[int, ...], sizes: dict[str, int]
) -> None:
    x = torch.randn(shape)
    found, expected = rearrange(x, pattern, **sizes), einops.rearrange(x, pattern, **sizes)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert found.stride() == expected.stride()
