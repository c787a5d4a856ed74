"""Residual quantization against values worked out by hand."""

from typing import Any

import pytest
import torch

from vqtrain.codebooks.residual import Residual
from vqtrain.errors import ConfigError

SIMVQ = {
    "kind": "simvq",
    "size": None,
    "dim": 1,
    "codebook_weight": 0.0,
    "commitment_weight": 1.0,
    "gradient": "straight_through",
}

GUMBEL = {
    "kind": "gumbel",
    "size": None,
    "dim": 2,
    "latent_dim": None,
    "kl_weight": 0.0,
    "temperature": 1.0,
    "final_temperature": 1.0,
    "temperature_steps": 1,
}


def make(inner: dict[str, Any] = SIMVQ, **changes: Any) -> Residual:
    arguments = {"size": 2, "num_codebooks": 2, "shared": False, "shrink": 1.0}
    return Residual(**{**arguments, **changes}, inner=inner)


def with_tables(*tables: list[float], **changes: Any) -> Residual:
    codebook = make(**{"num_codebooks": len(tables), **changes})
    for level, table in zip(codebook.levels, tables, strict=True):
        with torch.no_grad():
            level.frozen.copy_(torch.tensor(table)[:, None])
            level.map.weight.fill_(1.0)
            level.map.bias.zero_()
    return codebook


def test_each_depth_quantizes_what_is_left() -> None:
    codebook = with_tables([0.0, 10.0], [-1.0, 2.0])
    quantized = codebook(torch.tensor([[[9.5, 1.8]]]))
    # 9.5: 10, left -0.5, so -1: 9. And 1.8: 0, left 1.8, so 2: 2.
    assert quantized.token_ids.tolist() == [[[1, 0], [0, 1]]]
    assert quantized.z_q.tolist() == [[[9.0, 2.0]]]
    # Squared rests: .25 and 3.24 after the first, .25 and .04 after the second; means over both.
    torch.testing.assert_close(quantized.loss, torch.tensor((0.25 + 3.24 + 0.25 + 0.04) / 4))
    torch.testing.assert_close(quantized.metrics["distance"], torch.tensor((0.25 + 0.04) / 2))


def test_the_gradient_passes_once_however_deep_it_is() -> None:
    z = torch.tensor([[[9.5, 1.8]]], requires_grad=True)
    with_tables([0.0, 10.0], [-1.0, 2.0])(z).z_q.sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[[1.0, 1.0]]]


def test_every_depth_pulls_the_latents_since_what_is_subtracted_is_constant() -> None:
    z = torch.tensor([[[9.5]]], requires_grad=True)
    with_tables([0.0, 10.0], [-1.0, 2.0])(z).loss.backward()
    # The mean of 2 (9.5 - 10) and 2 (-0.5 + 1).
    assert z.grad is not None
    torch.testing.assert_close(z.grad, torch.tensor([[[(-1.0 + 1.0) / 2]]]))


def test_codes_shrink_with_the_depth() -> None:
    codebook = with_tables([-1.0, 1.0], [-1.0, 1.0], shrink=0.5)
    quantized = codebook(torch.tensor([[[1.4, 0.6]]]))
    # 1 and then 0.5 of 1; 1 and then 0.5 of -1.
    assert quantized.z_q.tolist() == [[[1.5, 0.5]]]
    assert torch.equal(codebook.decode(quantized.token_ids), quantized.z_q)


def test_in_training_the_decoder_may_get_the_first_depths_alone() -> None:
    codebook = with_tables([0.0, 10.0], [-1.0, 2.0], [0.0, 0.5], quantizer_dropout=True)
    z = torch.tensor([[[9.5, 1.8]]], requires_grad=True)
    sums = [[10.0, 0.0], [9.0, 2.0], [9.5, 2.0]]
    counts = [0, 0, 0]
    for step in range(60):
        codebook.train().begin_step(step, seed=3)
        quantized = codebook(z)
        number = sums.index(quantized.z_q.tolist()[0][0])
        counts[number] += 1
        assert codebook(z).z_q.equal(quantized.z_q)  # in all batches of the step
        assert quantized.token_ids.tolist() == [[[1, 0], [0, 1], [1, 0]]]
        assert torch.autograd.grad(quantized.z_q.sum(), z)[0].tolist() == [[[1.0, 1.0]]]
        found = codebook.eval()(z)
        assert found.z_q.tolist() == [[sums[2]]]
        for depths, wanted in enumerate(sums, start=1):
            assert codebook.decode(found.token_ids[:, :depths]).tolist() == [[wanted]]
    assert min(counts) > 10
    again = with_tables([0.0, 10.0], [-1.0, 2.0], [0.0, 0.5], quantizer_dropout=True)
    codebook.begin_step(7, seed=3)
    again.begin_step(7, seed=3)
    assert codebook.decoded_depths == again.decoded_depths
    with pytest.raises(ConfigError, match=r"must be \[b, 3, \*tokens\], got \[1, 4, 2\]"):
        codebook.decode(torch.zeros(1, 4, 2, dtype=torch.int64))


def test_a_shared_codebook_is_one_table() -> None:
    codebook = make(shared=True, num_codebooks=3)
    assert len(codebook.levels) == 1
    assert codebook.num_codebooks == 3
    assert codebook(torch.randn(2, 1, 5)).token_ids.shape == (2, 3, 5)


def test_each_depth_starts_from_what_those_before_it_leave() -> None:
    ema = {
        "kind": "ema",
        "size": None,
        "dim": 2,
        "decay": 0.9,
        "commitment_weight": 1.0,
        "l2_normalize": False,
        "gradient": "straight_through",
        "kmeans_iterations": 0,
        "restart_below": 0.0,
        "sampling_temperature": 0.0,
    }
    codebook = make(ema, size=8)
    z = torch.randn(4, 2, 16)
    codebook.initialize(z)
    first, second = codebook.levels
    rest = z - first.eval()(z).z_q
    columns = {tuple(column) for column in rest.transpose(1, 2).flatten(0, 1).tolist()}
    assert {tuple(code) for code in second.vectors.tolist()} <= columns
    assert codebook.training


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": 0}, "^size must be at least 1, got 0"),
        ({"num_codebooks": 0}, "num_codebooks must be at least 1, got 0"),
        ({"shrink": 0.0}, "shrink must be above 0"),
        ({"inner": {**SIMVQ, "size": 7}}, "inner.size is set by codebook.size, got 7"),
        (
            {"quantizer_dropout": True, "inner": GUMBEL},
            "inner.kind=gumbel learns from the decoder alone, and with quantizer_dropout that",
        ),
        ({"inner": {"size": None}}, "inner.kind must be the word of a codebook, got None"),
        (
            {"inner": {**SIMVQ, "kind": "simv"}},
            "^inner.kind: unknown kind 'simv', did you mean 'simvq'",
        ),
        ({"inner": {**SIMVQ, "dim": 0}}, "^inner.dim must be at least 1, got 0"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make(**changes)
