"""Means since the last line, worked out by hand."""

import pytest
import torch

from vqtrain.training.window import Window


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value)


def add(window: Window, total: float, ids: list[int], distance: float = 0.0) -> None:
    window.add(
        {"generator/total": scalar(total)}, {"distance": scalar(distance)}, torch.tensor([[ids]])
    )


def test_means_are_over_the_batches_of_terms_and_over_the_steps_of_the_norm() -> None:
    window = Window(num_codebooks=1, size=4)
    # Two steps of two batches.
    add(window, 1.0, [0, 0], distance=8.0)
    add(window, 2.0, [0, 0], distance=0.0)
    window.add_step({"generator/gradient_norm": scalar(10.0)})
    add(window, 3.0, [1, 1], distance=2.0)
    add(window, 6.0, [1, 1], distance=2.0)
    window.add_step({"generator/gradient_norm": scalar(20.0)})
    means = window.means()
    assert means == {
        "train/generator/total": 3.0,  # (1 + 2 + 3 + 6) / 4
        "train/codebook/distance": 3.0,  # (8 + 0 + 2 + 2) / 4
        "train/generator/gradient_norm": 15.0,  # (10 + 20) / 2
        "train/codebook/usage": 0.5,  # ids 0 and 1 of 4
        "train/codebook/perplexity": pytest.approx(2.0),  # both equally often
        "train/codebook/top1_share": 0.5,
    }


def test_a_window_begins_anew_after_its_means() -> None:
    window = Window(num_codebooks=1, size=4)
    add(window, 1.0, [0])
    window.means()
    assert window.means() == {}
    add(window, 5.0, [3])
    assert window.means()["train/generator/total"] == 5.0


def test_a_state_continues_where_it_was_taken() -> None:
    window, other = (Window(num_codebooks=1, size=4) for _ in range(2))
    add(window, 0.1, [0, 1])
    window.add_step({"generator/gradient_norm": scalar(0.7)})
    other.load_state_dict(window.state_dict(), torch.device("cpu"))
    for each in (window, other):
        add(each, 0.2, [1, 2])
        each.add_step({"generator/gradient_norm": scalar(0.3)})
    means = window.means()
    assert means["train/codebook/usage"] == 0.75
    assert other.means() == means


def test_the_state_of_an_empty_window_is_empty() -> None:
    window = Window(num_codebooks=1, size=4)
    add(window, 1.0, [0])
    window.load_state_dict(Window(num_codebooks=1, size=4).state_dict(), device=torch.device("cpu"))
    assert window.means() == {}


def test_sums_keep_small_differences() -> None:
    window = Window(num_codebooks=1, size=4)
    # In float32 the sum would stay at 2^24, as 1 is half of what it can tell apart there.
    for total in (2.0**24, 1.0, 1.0, 1.0):
        add(window, total, [0])
    assert window.means()["train/generator/total"] == (2**24 + 3) / 4


def test_the_use_of_several_codebooks_is_their_mean() -> None:
    window = Window(num_codebooks=2, size=4)
    window.add({"generator/total": scalar(0.0)}, {}, torch.tensor([[[0, 1, 2, 3], [1, 1, 1, 1]]]))
    means = window.means()
    assert means["train/codebook/usage"] == (4 / 4 + 1 / 4) / 2
    assert means["train/codebook/perplexity"] == pytest.approx((4 + 1) / 2)
