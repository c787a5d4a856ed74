"""The model that predicts scales, against a transformer in loops over scales upsampled here."""

from collections.abc import Sequence
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vqtrain.codebooks.multiscale import MultiScale
from vqtrain.generation.base import Condition
from vqtrain.generation.form import TokenForm
from vqtrain.generation.next_scale import NextScale
from vqtrain.generation.sampling import Sampling
from vqtrain.ops.noise import SampleNoise

GRIDS = ((1, 1), (2, 2), (4, 4))
FORM = TokenForm(size=9, num_codebooks=1, token_shape=(21,), grids=GRIDS)
CLASS = Condition(size=3, length=1)
QUIET = SampleNoise(seeds=[])
SCALE_OF = torch.tensor([0] + [1] * 4 + [2] * 16)


def codebook_of(share: float, levels: Sequence[int] = (3, 3)) -> MultiScale:
    return MultiScale(
        size=3 ** len(levels),
        scales=[1, 2, 4],
        num_convolutions=1,
        convolution_share=share,
        convolution_weight=1.0,
        inner={"kind": "fsq", "size": None, "levels": levels, "eps": 1e-3},
    )


def model_of(condition: Condition = CLASS, share: float = 0.5) -> NextScale:
    model = NextScale(
        form=FORM, condition=condition, codebook=codebook_of(share), depth=2, dim=64
    ).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def test_the_code_length_is_that_of_a_transformer_in_loops(in_loops: ModuleType) -> None:
    model = model_of(share=0.0)  # no convolution
    token_ids = torch.randint(9, (1, 21))
    # FSQ with 3 x 3 levels in [-1, 1]: the first channel changes fastest.
    codes = torch.stack([token_ids[0] % 3 - 1, token_ids[0] // 3 - 1]).double()
    coarse = codes[:, :1].reshape(2, 1, 1).expand(2, 4, 4)
    finer = F.interpolate(codes[None, :, 1:5].reshape(1, 2, 2, 2), (4, 4), mode="bicubic")[0]
    pooled = coarse.reshape(2, 2, 2, 2, 2).mean(dim=(2, 4)).flatten(1)
    inputs = [model.vocabulary.table[2], model.vocabulary.table[12]]
    for given in (pooled, (coarse + finer).flatten(1)):
        inputs += [model.read_codes.weight @ each + model.read_codes.bias for each in given.T]
    xs = list(torch.stack(inputs) + model.network.positions)
    hidden = in_loops.transformer(model.network, xs, [2] * 2 + [6] * 4 + [22] * 16)[1:]
    wanted = sum(
        in_loops.nats(model.vocabulary, 0, h, i)
        for h, i in zip(hidden, token_ids[0].tolist(), strict=True)
    )
    got = model.nats(token_ids, torch.tensor([[2]]), QUIET)
    assert got.tolist() == pytest.approx([wanted], rel=1e-6)
    assert model.loss(token_ids, torch.tensor([[2]]), QUIET).tolist() == pytest.approx(
        [wanted / 21], rel=1e-6
    )


def test_ids_of_a_scale_change_only_the_logits_of_finer_ones() -> None:
    model = model_of()
    token_ids, conditions = torch.randint(9, (1, 21)), torch.tensor([[1]])
    before = model.hidden(token_ids, conditions)[0]
    for position in range(21):
        changed = token_ids.clone()
        changed[0, position] = (changed[0, position] + 1) % 9
        same = (model.hidden(changed, conditions)[0] == before).all(dim=1)
        assert torch.equal(same, SCALE_OF[position] >= SCALE_OF)


@pytest.mark.parametrize("condition", [Condition(), CLASS], ids=["none", "class"])
def test_samples_are_valid_and_as_without_memory(condition: Condition) -> None:
    model = model_of(condition)
    conditions = torch.zeros(5, condition.length, dtype=torch.int64)

    def sample(sampling: Sampling, seed: int = 0) -> Tensor:
        return model.sample(conditions, sampling, torch.Generator().manual_seed(seed))

    greedy = sample(Sampling(top_k=1))
    hidden = model.hidden(greedy, conditions)
    assert torch.equal(
        model.vocabulary.logits(hidden.flatten(0, 1), 0).argmax(-1).reshape(5, 21), greedy
    )
    sampled = sample(Sampling())
    assert codebook_of(0.5).decode(sampled[:, None]).shape == (5, 2, 4, 4)
    assert torch.equal(sampled, sample(Sampling()))
    assert not torch.equal(sampled, sample(Sampling(), seed=1))


def test_the_codebook_is_no_part_of_the_model() -> None:
    codebook = codebook_of(0.5).train()
    model = NextScale(form=FORM, condition=CLASS, codebook=codebook, depth=1, dim=32)
    assert codebook.training
    assert all(parameter.requires_grad for parameter in codebook.parameters())
    assert not any("frozen" in name for name in model.state_dict())
    assert not any("frozen" in name for name, _ in model.named_parameters())
    conditions = torch.zeros(2, 1, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        model.loss(torch.randint(9, (2, 21)), conditions, QUIET).mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_is_read_of_codes_is_as_large_as_other_inputs_at_first() -> None:
    form = TokenForm(size=81, num_codebooks=1, token_shape=(21,), grids=GRIDS)
    codebook = codebook_of(0.0, levels=[3] * 4)
    model = NextScale(form=form, condition=CLASS, codebook=codebook, depth=1, dim=64)
    codes = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 4)
    assert_close(model.read_codes(codes).std().item(), 0.02, rtol=0.15, atol=0)


def test_operations_are_those_that_torch_counts() -> None:
    model = model_of(share=0.0)
    conditions = torch.zeros(1, 1, dtype=torch.int64)
    # The counter knows no fused attention on a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.nats(torch.randint(9, (1, 21)), conditions, QUIET)
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert model.flops == 3 * (counter.get_total_flops() - convolutions)
