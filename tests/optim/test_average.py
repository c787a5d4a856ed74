"""The average of the weights against its recursion, and its way in and out of a module."""

import copy

import pytest
import torch
from torch import Tensor, nn

from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.ops.unallocated import CopyWithoutValues
from vqtrain.optim.average import WeightAverage


def network() -> nn.Module:
    """Parameters, float buffers and an integer buffer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@torch.no_grad()
def disturb(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter))
    module[1].running_mean.add_(1.0)
    module[1].num_batches_tracked.add_(1)


def test_average_equals_the_hand_worked_values() -> None:
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(module.weight, 0.0)
    average = WeightAverage(module, decay=0.15)
    nn.init.constant_(module.weight, 10.0)
    average.update(module, step=0)  # decay (1 + 0) / (10 + 0) = 0.1: 0.1 * 0 + 0.9 * 10 = 9
    torch.testing.assert_close(average.state_dict()["weight"].item(), 9.0)
    nn.init.constant_(module.weight, 20.0)
    average.update(module, step=1)  # decay min(0.15, 2 / 11) = 0.15: 0.15 * 9 + 0.85 * 20 = 18.35
    torch.testing.assert_close(average.state_dict()["weight"].item(), 18.35)
    assert average.state_dict()["weight"].dtype == torch.float64


def test_parameters_are_averaged_and_buffers_copied() -> None:
    module = network().double()
    average = WeightAverage(module, decay=0.9)
    expected = copied(module)
    for step in range(30):
        disturb(module)
        average.update(module, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, parameter in module.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
    for name, _ in module.named_parameters():
        torch.testing.assert_close(average.state_dict()[name], expected[name])
    for name, buffer in module.named_buffers():
        assert torch.equal(average.state_dict()[name], buffer)
        assert average.state_dict()[name].data_ptr() != buffer.data_ptr()


def test_applied_to_gives_the_average_and_then_the_same_bits_as_before() -> None:
    module = network()
    average = WeightAverage(module, decay=0.9)
    disturb(module)
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = float("nan")
        module[0].weight[0, 0, 0, 1] = -0.0
    before, addresses = copied(module), [p.data_ptr() for p in module.parameters()]
    with average.applied_to(module):
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, average.state_dict()[name])
        disturb(module)  # what happens inside is undone
    assert [p.data_ptr() for p in module.parameters()] == addresses
    for name, tensor in module.state_dict().items():
        as_bytes = tensor.reshape(-1).view(torch.uint8)
        assert torch.equal(as_bytes, before[name].reshape(-1).view(torch.uint8))


def test_applied_to_leaves_the_average_alone() -> None:
    module = network()
    average = WeightAverage(module, decay=0.9)
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    with average.applied_to(module):
        disturb(module)
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_weights_come_back_after_an_exception() -> None:
    module = network()
    average = WeightAverage(module, decay=0.9)
    disturb(module)
    before = copied(module)
    with pytest.raises(RuntimeError, match="in the middle"), average.applied_to(module):
        raise RuntimeError("in the middle")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_average_goes_through_a_checkpoint_bit_for_bit() -> None:
    module = network()
    average = WeightAverage(module, decay=0.9)
    disturb(module)
    average.update(module, step=0)
    saved = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    resumed = WeightAverage(network(), decay=0.9)
    resumed.load_state_dict(saved)
    disturb(module)
    for one in (average, resumed):
        one.update(module, step=1)
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])
    assert not torch.equal(average.state_dict()["0.weight"], saved["0.weight"])


def test_the_average_follows_the_dtype_of_the_module() -> None:
    module = network()
    average = WeightAverage(module, decay=0.9)
    average.update(module.double(), step=0)
    assert average.state_dict()["0.weight"].dtype == torch.float64
    assert average.state_dict()["1.num_batches_tracked"].dtype == torch.int64


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    average = WeightAverage(nn.Linear(2, 2), decay=0.9)
    good = {name: torch.zeros_like(tensor) for name, tensor in average.state_dict().items()}
    with pytest.raises(CheckpointError, match="lack 'bias'"):
        average.load_state_dict({"weight": good["weight"]})
    with pytest.raises(CheckpointError, match="hold 'other'"):
        average.load_state_dict({**good, "other": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"'weight' has the shape \[3, 2\]"):
        average.load_state_dict({**good, "weight": torch.zeros(3, 2)})
    assert all(tensor.any() for tensor in average.state_dict().values())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, float("nan")])
def test_an_impossible_decay_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=f"trainer.ema_decay .* got {decay}"):
        WeightAverage(nn.Linear(1, 1), decay=decay)


def test_an_average_on_the_cpu_is_the_same_and_stays_there() -> None:
    module = network()
    here, there = WeightAverage(module, decay=0.9), WeightAverage(module, decay=0.9, device="cpu")
    for step in range(3):
        disturb(module)
        here.update(module, step)
        there.update(module, step)
    for name, tensor in there.state_dict().items():
        assert torch.equal(tensor, here.state_dict()[name])
        assert tensor.data_ptr() != module.state_dict()[name].data_ptr()
    # A GPU is not needed to see where tensors of one would go.
    with CopyWithoutValues(torch.device("cuda"), torch.float32):
        on_gpu = copy.deepcopy(module)
    average = WeightAverage(on_gpu, decay=0.9, device="cpu")
    average.update(on_gpu, 0)
    assert {tensor.device.type for tensor in average.state_dict().values()} == {"cpu"}
