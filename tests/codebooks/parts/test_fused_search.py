"""The kernel gives the answers of the tiles, in Triton's interpreter and on a GPU."""

import os
import subprocess
import sys

import pytest

# In a process of its own: the checks of shapes under pytest and the interpreter change functions.
SCRIPT = """
import sys
import torch
from vqtrain.codebooks.parts import search
from vqtrain.codebooks.parts.fused_search import fused_best
device = sys.argv[1]
for n, k, d in ((100, 1, 3), (130, 7, 8), (64, 200, 16), (65, 129, 32), (3, 300, 20)):
    z, keys = torch.randn(n, d), torch.randn(k, d)
    for bias in (None, search.nearness(keys)):
        tiles = search.best(z, keys, bias)
        inputs = [None if t is None else t.to(device) for t in (z, keys, bias)]
        found = fused_best(*inputs).cpu()
        scores = z.double() @ keys.double().T + (0 if bias is None else bias.double())
        chosen = scores[torch.arange(n), found]
        assert found.dtype == torch.int64
        assert torch.equal(found, tiles) or (scores.amax(1) - chosen).max() < 1e-5, (n, k, d)
        assert search.can_fuse(inputs[0]) == (device == "cuda")
equal = torch.ones(2, 4, device=device), torch.ones(9, 4, device=device)
assert fused_best(*equal, None).tolist() == [0, 0]  # of equal scores the lowest id
strange = fused_best(torch.full((3, 4), torch.nan, device=device), equal[1], None)
assert 0 <= int(strange.min()) <= int(strange.max()) < 9
"""


def run(device: str, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, device],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_kernel_gives_the_answers_of_the_tiles_in_the_interpreter() -> None:
    run("cpu", TRITON_INTERPRET="1")


@pytest.mark.gpu
def test_the_kernel_gives_the_answers_of_the_tiles_on_a_gpu() -> None:
    run("cuda")
