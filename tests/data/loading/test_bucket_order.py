"""Batches of one bucket, compared with queues that are filled image by image."""

from collections import Counter

import numpy as np
import pytest

from vqtrain.data.loading import order as order_module
from vqtrain.data.loading.bucket_order import BucketOrder
from vqtrain.data.loading.order import EndlessOrder

B = 3
LABELS = np.array([0] * 20 + [1] * 13 + [2] * 4, dtype=np.uint8)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks of one image in a window: a batch of a rare bucket needs many windows."""
    monkeypatch.setattr(order_module, "WINDOW", 2)


def endless(weights: np.ndarray) -> EndlessOrder:
    return EndlessOrder(
        sizes=np.full(len(LABELS), 10**7),
        weights=weights.astype(np.float32),
        seed=5,
        sampling="permuted",
        labels=LABELS,
    )


def batches_by_queues(order: EndlessOrder, samples: int) -> list[tuple[int, list[list[int]]]]:
    """Put sample after sample into the queue of its bucket, and take a batch when it is full."""
    queues: dict[int, list[list[int]]] = {0: [], 1: [], 2: []}
    batches = []
    for sample in zip(*(each.tolist() for each in order.samples(0, samples)), strict=True):
        bucket = int(LABELS[sample[2]])
        queues[bucket].append(list(sample))
        if len(queues[bucket]) == B:
            batches.append((bucket, queues[bucket]))
            queues[bucket] = []
    return batches


@pytest.mark.parametrize("weights", [np.ones(37), np.arange(37) % 3 / 2 + 0.5], ids=["1", "some"])
def test_batches_are_those_of_queues_in_any_order_of_questions(weights: np.ndarray) -> None:
    expected = batches_by_queues(endless(weights), 7 * endless(weights).epoch_size)
    assert len(expected) > 60
    bucketed = BucketOrder(endless(weights), LABELS, batch_size=B)
    for number in [*range(len(expected)), *range(0, len(expected), 7)][::-1]:
        batch = bucketed.batch(number)
        found = np.stack([batch.epochs, batch.positions, batch.ids], axis=1).tolist()
        assert (batch.bucket, found) == expected[number]


def test_every_image_comes_once_an_epoch_and_the_rest_with_the_next_one() -> None:
    bucketed = BucketOrder(endless(np.ones(37)), LABELS, batch_size=B)
    # 3 epochs of 37 images are 37 full batches: 20, 13 and 4 images 3 times divide by 3.
    batches = [bucketed.batch(number) for number in range(37)]
    assert all((LABELS[batch.ids] == batch.bucket).all() for batch in batches)
    seen = Counter(
        pair
        for batch in batches
        for pair in zip(batch.epochs.tolist(), batch.ids.tolist(), strict=True)
    )
    assert seen == Counter({(epoch, image): 1 for epoch in range(3) for image in range(37)})
    # Only where an epoch begins does a batch hold images of two epochs.
    assert sum(len(set(batch.epochs.tolist())) > 1 for batch in batches) <= 3 * 2
