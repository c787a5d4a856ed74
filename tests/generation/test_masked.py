"""The masked model: what a mask costs, the bound over all masks, and samples."""

import itertools
import math
from collections.abc import Sequence
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vqtrain.generation import masked
from vqtrain.generation.base import Condition
from vqtrain.generation.form import TokenForm
from vqtrain.generation.masked import Masked
from vqtrain.generation.sampling import Sampling
from vqtrain.ops.noise import SampleNoise

TWO = TokenForm(size=5, num_codebooks=2, token_shape=(2, 2))
THREE = TokenForm(size=5, num_codebooks=1, token_shape=(3,))
CLASS = Condition(size=3, length=1)
IDS = torch.tensor([[[0, 3], [4, 1]]])
ROW = torch.tensor([[2]])


def model_of(form: TokenForm, condition: Condition, std: float = 0.4) -> Masked:
    model = Masked(form=form, condition=condition, depth=2, dim=64).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def noise_of(b: int, seed: int = 0) -> SampleNoise:
    return SampleNoise(seeds=[(seed, number) for number in range(b)])


def test_a_mask_costs_what_a_transformer_in_loops_says(
    monkeypatch: pytest.MonkeyPatch, in_loops: ModuleType
) -> None:
    model = model_of(TWO, CLASS)
    # 3 classes, ids of codebooks from 3 and from 8 on, the mask 13: the second and the last masked.
    is_masked = torch.tensor([[False, True, False, True]])
    inputs = [2, 3, 13, 8 + 4, 13]
    xs = list(model.vocabulary.table[inputs] + model.network.positions)
    hidden = in_loops.transformer(model.network, xs, [5] * 5)[1:]
    wanted = in_loops.nats(model.vocabulary, 0, hidden[1], 3) + in_loops.nats(
        model.vocabulary, 1, hidden[3], 1
    )
    counts: list[Tensor] = []

    def masks(count: Tensor, *_: object) -> Tensor:
        counts.append(count)
        return is_masked

    monkeypatch.setattr(masked, "masks", masks)
    # Two of four ids are masked for cos(pi u / 2) from 1/4 to 1/2, and for u from 1/4 to 1/2.
    for drawn, got, factor in ((0.7, model.loss, 1 / 2), (0.3, model.nats, 4 / 2)):
        uniform = torch.tensor([[drawn]])
        monkeypatch.setattr(SampleNoise, "uniform_per_sample", lambda *_, u=uniform: u)
        assert got(IDS, ROW, noise_of(1)).tolist() == pytest.approx([wanted * factor])
        assert counts.pop().tolist() == [[2]]


def test_any_so_many_ids_are_masked() -> None:
    counts = torch.tensor([[1.0], [37.0], [100.0]])
    found = masked.masks(counts, noise_of(3), 100)
    assert found.sum(dim=1, keepdim=True).equal(counts.long())
    assert torch.equal(found, masked.masks(counts, noise_of(3), 100))
    # All places are as likely as others.
    shares = masked.masks(torch.full((800, 1), 25.0), noise_of(800), 100).double().mean(dim=0)
    assert_close(shares, torch.full((100,), 0.25).double(), atol=0.07, rtol=0)


def nats_behind(model: Masked, flat: Tensor, hidden: Sequence[int]) -> dict[int, float]:
    """What each masked id of one sample costs."""
    is_masked = torch.tensor([[place in hidden for place in range(flat.shape[1])]])
    own = flat.reshape(1, model.form.num_codebooks, -1)
    each = model.vocabulary.nats(model.hidden(flat, ROW, is_masked), own).flatten().tolist()
    return {place: each[place] for place in hidden}


def mean_over_masks(model: Masked, flat: Tensor) -> float:
    """The mean of ``nats``: over m from 1 to n, and over all masks of m ids."""
    n, found = flat.shape[1], 0.0
    for m in range(1, n + 1):
        costs = [
            sum(nats_behind(model, flat, hidden).values())
            for hidden in itertools.combinations(range(n), m)
        ]
        found += n / m * sum(costs) / len(costs) / n
    return found


def test_the_mean_over_masks_bounds_the_code_length() -> None:
    model = model_of(THREE, CLASS)
    flat = torch.tensor([[0, 3, 4]])
    bound = mean_over_masks(model, flat)
    orders = list(itertools.permutations(range(3)))
    lengths = [
        sum(nats_behind(model, flat, order[n:])[order[n]] for n in range(3)) for order in orders
    ]
    assert bound == pytest.approx(sum(lengths) / len(lengths))
    # An order drawn at random, which is not told, codes with the mean of their probabilities.
    assert bound > -math.log(sum(math.exp(-length) for length in lengths) / len(lengths))
    # What ``nats`` draws has this mean.
    draws = model.nats(flat.expand(800, 3), ROW.expand(800, 1), noise_of(800))
    error = draws.std().item() / math.sqrt(800)
    assert draws.mean().item() == pytest.approx(bound, abs=4 * error)


def test_the_bound_is_exact_where_the_input_says_nothing() -> None:
    model = model_of(TWO, CLASS)
    torch.nn.init.zeros_(model.vocabulary.table)
    of_each = -model.vocabulary.bias.log_softmax(dim=1)
    wanted = of_each[0, [0, 3]].sum() + of_each[1, [4, 1]].sum()
    assert mean_over_masks(model, IDS.flatten(1)) == pytest.approx(wanted.item())
    torch.nn.init.zeros_(model.vocabulary.bias)
    nats = model.nats(IDS.expand(9, 2, 2), ROW.expand(9, 1), noise_of(9))
    assert_close(nats, torch.full((9,), 4 * math.log(5)).double())


def test_samples_are_valid_and_follow_the_generator() -> None:
    model = model_of(TWO, CLASS)
    conditions = torch.arange(3)[:, None].repeat(20, 1)
    first, again, other = (
        model.sample(conditions, Sampling(), torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert first.shape == (60, 2, 2)
    assert first.unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    greedy = model.sample(conditions, Sampling(top_k=1), torch.Generator())
    assert torch.equal(
        greedy, model.sample(conditions, Sampling(temperature=0.0), torch.Generator())
    )
    assert torch.equal(greedy[:3], greedy[3:6])


def test_greedy_sampling_keeps_the_surest_ids_first() -> None:
    """Six ids take six steps, each of which keeps the surest id."""
    model = model_of(TokenForm(size=5, num_codebooks=1, token_shape=(2, 3)), CLASS, std=1.0)
    for bias in (model.vocabulary.bias, model.network.norm.bias):
        torch.nn.init.zeros_(bias)  # so that all depends on the other ids

    def in_order(sign: int) -> Tensor:
        """Ids kept one by one, each the surest one of those that are left, or the least sure."""
        ids, is_masked = torch.zeros(1, 6).long(), torch.ones(1, 6, dtype=torch.bool)
        while is_masked.any():
            hidden = model.hidden(ids, ROW, is_masked)[0, 0]
            best = model.vocabulary.logits(hidden, 0).softmax(-1).max(dim=1)
            place = int((sign * best.values).where(is_masked[0], -2).argmax())
            ids[0, place], is_masked[0, place] = best.indices[place], False
        return ids.reshape(1, 2, 3)

    greedy = model.sample(ROW, Sampling(top_k=1), torch.Generator())
    assert torch.equal(greedy, in_order(1))
    assert not torch.equal(greedy, in_order(-1))


def test_operations_are_those_that_torch_counts() -> None:
    model = model_of(TWO, CLASS)
    # The counter knows no fused attention on a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.loss(IDS, ROW, noise_of(1))
    assert model.flops == 3 * counter.get_total_flops()
