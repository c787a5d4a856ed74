"""The causal model, against a transformer written with loops, and what it promises."""

import math
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vqtrain.generation import vocabulary
from vqtrain.generation.base import Condition
from vqtrain.generation.causal import Causal
from vqtrain.generation.form import TokenForm
from vqtrain.generation.sampling import Sampling
from vqtrain.ops.noise import SampleNoise

PLANE = TokenForm(size=5, num_codebooks=1, token_shape=(2, 3))
TWO = TokenForm(size=5, num_codebooks=2, token_shape=(2, 2, 2))
CLASS = Condition(size=3, length=1)
TEXT = Condition(size=7, length=2)
ORDERS = ("interleaved", "delayed")
QUIET = SampleNoise(seeds=[])


def model_of(form: TokenForm, condition: Condition, order: str = "interleaved") -> Causal:
    """A model whose weights are large enough that everything matters."""
    model = Causal(form=form, condition=condition, depth=2, dim=64, order=order).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def ids_of(form: TokenForm, condition: Condition, b: int = 3) -> tuple[Tensor, Tensor]:
    return (
        torch.randint(form.size, (b, *form.token_shape)),
        torch.randint(max(1, condition.size), (b, condition.length)),
    )


@pytest.mark.parametrize("order", ORDERS)
def test_the_code_length_is_that_of_a_transformer_in_loops(
    order: str, in_loops: ModuleType
) -> None:
    model = model_of(TWO, TEXT, order)
    # Codebooks are [[0, 1], [2, 3]] and [[4, 0], [1, 2]]: ids from 7 and from 12 on; begin is 17,
    # padding 20.
    token_ids = torch.tensor([[[[0, 1], [2, 3]], [[4, 0], [1, 2]]]])
    if order == "interleaved":
        ids = [7, 16, 8, 12, 9, 13, 10, 14]
        targets = [(n % 2, i - (12 if n % 2 else 7)) for n, i in enumerate(ids)]
        inputs = [3, 6, 17, *ids[:-1]]
    else:
        inputs = [3, 6, 17, 7, 20, 8, 16, 9, 12, 10, 13, 20]
        targets = [(0, 0), None, (0, 1), (1, 4), (0, 2), (1, 0), (0, 3), (1, 1), None, (1, 2)]
    xs = list(model.vocabulary.table[inputs] + model.network.positions)
    outputs = in_loops.transformer(model.network, xs, [n + 1 for n in range(len(xs))])[2:]
    wanted = sum(
        in_loops.nats(model.vocabulary, codebook, hidden, token_id)
        for hidden, target in zip(outputs, targets, strict=True)
        if target is not None
        for codebook, token_id in [target]
    )
    conditions = torch.tensor([[3, 6]])
    got = model.nats(token_ids, conditions, QUIET)
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx([wanted], rel=1e-9)
    assert model.loss(token_ids, conditions, QUIET).tolist() == pytest.approx([wanted / 8])


@pytest.mark.parametrize("order", ORDERS)
def test_a_later_token_changes_no_earlier_logit(order: str) -> None:
    model = model_of(TWO, CLASS, order)
    token_ids, conditions = ids_of(TWO, CLASS, 1)
    sequence = model.layout.to_sequence(token_ids.reshape(1, *model.flat_shape))
    before = model.hidden(sequence, conditions)[0].transpose(0, 1).flatten(0, 1)
    for position in range(1, sequence.shape[1]):
        changed = sequence.clone()
        changed[0, position] = (changed[0, position] + 1) % model.layout.vocab_size
        after = model.hidden(changed, conditions)[0].transpose(0, 1).flatten(0, 1)
        same = (before == after).all(dim=1)
        # The first prediction is that of the id at position 1, from the one at position 0.
        assert same.tolist() == [n < position for n in range(len(before))]


@pytest.mark.parametrize(
    ("form", "condition", "order"),
    [(PLANE, Condition(), "interleaved"), (TWO, TEXT, "interleaved"), (TWO, CLASS, "delayed")],
)
def test_samples_are_valid_and_as_without_memory(
    form: TokenForm, condition: Condition, order: str
) -> None:
    model = model_of(form, condition, order)
    _, conditions = ids_of(form, condition)
    sampled = model.sample(conditions, Sampling(temperature=0.0), torch.Generator())
    assert sampled.shape == (3, *form.token_shape)
    assert sampled.min() >= 0
    assert sampled.max() < form.size
    # Each id is the most likely one, given those before it, in one pass without memory.
    sequence = model.layout.to_sequence(sampled.reshape(3, *model.flat_shape))
    for number, hidden in enumerate(model.hidden(sequence, conditions).unbind(1)):
        streams = sequence[:, 1:].unflatten(1, (-1, form.num_codebooks))[..., number]
        best = torch.stack([model.vocabulary.logits(each, number).argmax(-1) for each in hidden])
        has_id = model.has_id[number]
        assert torch.equal((streams - model.first_ids[number])[:, has_id], best[:, has_id])
    for sampling in (Sampling(top_k=1), Sampling(top_p=1e-9)):
        assert torch.equal(sampled, model.sample(conditions, sampling, torch.Generator()))


def test_sampling_follows_the_generator_and_the_probabilities() -> None:
    form = TokenForm(size=3, num_codebooks=1, token_shape=(2,))
    model = model_of(form, CLASS)
    conditions = torch.full((1000, 1), 2)
    first, again, other = (
        model.sample(conditions, Sampling(), torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    probabilities = model.nats(pairs, conditions[:9], QUIET).neg().exp()
    assert_close(probabilities.sum(), torch.tensor(1.0).double())
    shares = (first @ torch.tensor([3, 1])).bincount(minlength=9) / 1000
    assert_close(shares.double(), probabilities, atol=0.06, rtol=0)


@pytest.mark.parametrize("order", ORDERS)
def test_a_model_that_knows_nothing_needs_the_bits_of_raw_ids(order: str) -> None:
    model = model_of(TWO, CLASS, order)
    torch.nn.init.zeros_(model.vocabulary.table)
    torch.nn.init.zeros_(model.vocabulary.bias)
    nats = model.nats(*ids_of(TWO, CLASS), QUIET)
    assert_close(nats, torch.full((3,), 8 * math.log(5)).double())


def test_the_model_starts_near_the_bits_of_raw_ids() -> None:
    model = Causal(form=TWO, condition=CLASS, depth=2, dim=64, order="interleaved")
    nats = model.nats(*ids_of(TWO, CLASS, 64), QUIET)
    assert_close(nats.mean().item(), 8 * math.log(5), rtol=0.02, atol=0)


def test_names_of_ids_do_not_matter() -> None:
    model, renamed = model_of(TWO, CLASS), model_of(TWO, CLASS)
    renamed.load_state_dict(model.state_dict())
    token_ids, conditions = ids_of(TWO, CLASS)
    token_ids_new = token_ids.clone()
    with torch.no_grad():
        for codebook, first in enumerate(model.first_ids.tolist()):
            new = torch.randperm(5)
            token_ids_new[:, codebook] = new[token_ids[:, codebook]]
            vectors = model.vocabulary.table[first : first + 5]
            renamed.vocabulary.table[first + new] = vectors
            renamed.vocabulary.bias[codebook, new] = model.vocabulary.bias[codebook]
    nats = model.nats(token_ids, conditions, QUIET)
    assert_close(renamed.nats(token_ids_new, conditions, QUIET), nats)
    assert not torch.allclose(model.nats(token_ids_new, conditions, QUIET), nats)


def test_a_grid_is_a_list_row_by_row() -> None:
    model = model_of(TWO, CLASS)
    token_ids, conditions = ids_of(TWO, CLASS)
    nats = model.nats(token_ids, conditions, QUIET)
    for shape in ((2, 4), (2, 2, 1, 2)):
        other = model_of(TokenForm(size=5, num_codebooks=2, token_shape=shape), CLASS)
        other.load_state_dict(model.state_dict())
        assert torch.equal(nats, other.nats(token_ids.reshape(-1, *shape), conditions, QUIET))
        assert other.sample(conditions, Sampling(), torch.Generator()).shape == (3, *shape)


def test_large_vocabularies_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(TWO, CLASS)
    token_ids, conditions = ids_of(TWO, CLASS)
    gradients, sampled = [], []
    for most in (1000, 10):
        monkeypatch.setattr(vocabulary, "MAX_LOGITS", most)
        monkeypatch.setattr(vocabulary, "MAX_DRAWN", most)
        sampled.append(model.sample(conditions, Sampling(top_k=1), torch.Generator()))
        model.zero_grad()
        model.loss(token_ids, conditions, QUIET).mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert_close(gradients[0], gradients[1])
    assert torch.equal(*sampled)
    assert all(each.abs().sum() > 0 for each in gradients[0])


@pytest.mark.parametrize("order", ORDERS)
def test_operations_are_those_that_torch_counts(order: str) -> None:
    model = model_of(TWO, CLASS, order)
    # The counter knows no fused attention on a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.nats(*ids_of(TWO, CLASS, 1), QUIET)
    assert model.flops == 3 * counter.get_total_flops()


def test_the_cross_entropy_stays_wide_under_autocast() -> None:
    model = Causal(form=TWO, condition=CLASS, depth=1, dim=32, order="interleaved")
    token_ids, conditions = ids_of(TWO, CLASS)
    with torch.autocast("cpu", torch.bfloat16):
        nats = model.nats(token_ids, conditions, QUIET)
        model.sample(conditions, Sampling(), torch.Generator())
    assert nats.dtype == torch.float32
    assert_close(nats, model.nats(token_ids, conditions, QUIET), rtol=0.01, atol=0)
