"""Half precision is widened, nothing is narrowed."""

import torch

from vqtrain.ops.precision import at_least_float32, widened, without_autocast


def test_only_half_precision_changes() -> None:
    for given, expected in {
        torch.bfloat16: torch.float32,
        torch.float16: torch.float32,
        torch.float32: torch.float32,
        torch.float64: torch.float64,
        torch.uint8: torch.uint8,
        torch.bool: torch.bool,
    }.items():
        assert at_least_float32(torch.zeros(1, dtype=given)).dtype == expected


def test_only_types_of_half_precision_are_widened() -> None:
    halves = torch.float16, torch.bfloat16
    assert {widened(dtype) for dtype in (*halves, torch.float32)} == {torch.float32}
    assert widened(torch.float64) == torch.float64


def test_autocast_is_off_inside() -> None:
    a = torch.randn(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with without_autocast(a):
            assert (a @ a).dtype == torch.float32
