"""Which model ids get, and what is refused."""

import pytest
import torch

from vqtrain.build import build_part
from vqtrain.codebooks.base import Codebook
from vqtrain.codebooks.fsq import FSQ
from vqtrain.errors import ConfigError
from vqtrain.generation import models
from vqtrain.generation.base import Condition
from vqtrain.generation.form import TokenForm
from vqtrain.generation.models import ModelSettings, build_model
from vqtrain.generation.sampling import Sampling
from vqtrain.ops.noise import SampleNoise

INNER = {"kind": "fsq", "size": None, "levels": [3, 3], "eps": 1e-3}
SCALES = {
    "size": 9,
    "scales": [1, 2],
    "num_convolutions": 1,
    "convolution_share": 0.5,
    "convolution_weight": 1.0,
    "inner": INNER,
}
PLANE = FSQ(size=None, levels=[3, 3], eps=1e-3)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scales", [False, True])
def test_ids_get_the_model_that_suits_them(scales: bool, masked: bool) -> None:
    codebook: Codebook = PLANE
    form = TokenForm(size=9, num_codebooks=1, token_shape=(2, 3))
    if scales:
        codebook = build_part("codebook", {"kind": "multiscale", "arguments": SCALES})
        form = TokenForm(size=9, num_codebooks=1, token_shape=(5,), grids=((1, 1), (2, 2)))
    model = build_model(form, ModelSettings(depth=1, dim=32, masked=masked), Condition(), codebook)
    assert model.kind == ("masked" if masked else "next_scale" if scales else "causal")
    # Without a condition, and with a grid of any form, all that a model does works.
    none = torch.zeros(4, 0, dtype=torch.int64)
    ids = model.sample(none, Sampling(), torch.Generator().manual_seed(0))
    codebook.decode(ids[:, None])
    noise = SampleNoise(seeds=[(0, number) for number in range(4)])
    assert model.nats(ids, none, noise).shape == model.loss(ids, none, noise).shape == (4,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"dim": -32}, "dim must be at least 1, got -32"),
        ({"dim": 100}, "multiple of 32, the channels of an attention head, got 100: use 96"),
        ({"order": "rows"}, "order must be one of interleaved, delayed, got 'rows'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ModelSettings(**{"depth": 1, "dim": 32, **settings})  # type: ignore[arg-type]  # are wrong


def test_impossible_conditions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"condition\.size must be at least 0, got -1"):
        Condition(size=-1)
    with pytest.raises(ConfigError, match="both 0 or both above, got 10 and 0"):
        Condition(size=10)


def test_a_vocabulary_that_takes_more_memory_than_is_free_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 2^21 ids x 32 channels x 4 numbers of 4 bytes = 1 GiB.
    form = TokenForm(size=2**21, num_codebooks=1, token_shape=(2, 3))
    settings = ModelSettings(depth=1, dim=32)
    monkeypatch.setattr(models, "free_memory", lambda _: 2**30 - 1)
    with pytest.raises(ConfigError, match=r"over 2097152 ids with dim=32 takes 1 GiB"):
        build_model(form, settings, Condition(), PLANE)
    monkeypatch.setattr(models, "free_memory", lambda _: 2**30)
    models.check_memory(form, 1, 32)
    # 2 blocks of 12 x 512^2 weights x 4 numbers of 4 bytes = 96 MiB.
    small = TokenForm(size=2, num_codebooks=1, token_shape=(2, 3))
    monkeypatch.setattr(models, "free_memory", lambda _: 96 * 2**20)
    models.check_memory(small, 2, 512)
    monkeypatch.setattr(models, "free_memory", lambda _: 96 * 2**20 - 1)
    with pytest.raises(ConfigError, match=r"to train 2 blocks with dim=512 takes 0 GiB of memory"):
        models.check_memory(small, 2, 512)
