"""LPIPS against the lpips package, on random weights in the files' own form."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lpips
import pytest
import torch
import torchvision
from torch import Tensor, nn

from vqtrain.errors import ConfigError, WeightsError
from vqtrain.layers.lpips import LPIPS, TRUNKS, load_lpips

ClassifierFile = Callable[[str], Path]
NETWORKS = ["vgg", "alex", "squeeze"]


@pytest.fixture
def network(classifier_file: ClassifierFile) -> LPIPS:
    return load_lpips("squeeze", str(classifier_file("squeeze")))


def reference(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The package's network, with its trained heads, on the weights of a file."""
    model = TRUNKS[name].classifier.__name__
    with torch.device("meta"):
        features = getattr(torchvision.models, model)(weights=None).features
    weights = {
        key.removeprefix("features."): tensor
        for key, tensor in torch.load(file, weights_only=True).items()
        if key.startswith("features.")
    }
    features.load_state_dict(weights, assign=True)
    # The package asks torchvision in a way that it warns of, and initializes all of the model.
    monkeypatch.setattr(torchvision.models, model, lambda **_: SimpleNamespace(features=features))
    return lpips.LPIPS(net=name, pnet_rand=True, verbose=False)


def pair(channels: int = 3, size: int = 40) -> tuple[Tensor, Tensor]:
    images = torch.rand(2, channels, size, size + 3, dtype=torch.float64) * 2 - 1
    return (images + 0.2 * torch.randn_like(images)).requires_grad_(), images


@pytest.mark.parametrize("name", NETWORKS)
def test_value_and_gradient_are_those_of_the_package(
    name: str, classifier_file: ClassifierFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = classifier_file(name)
    mine = load_lpips(name, str(file)).double()
    theirs = reference(name, file, monkeypatch).double()
    reconstruction, images = pair()
    before = reconstruction.detach().clone(), images.clone()
    found = mine(reconstruction, images)
    (gradient,) = torch.autograd.grad(found.sum(), reconstruction)
    expected = theirs(reconstruction, images).flatten()
    (expected_gradient,) = torch.autograd.grad(expected.sum(), reconstruction)
    assert found.shape == (2,)
    assert (expected > 1e-3).all()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        gradient, expected_gradient, rtol=1e-6, atol=1e-6 * float(expected_gradient.abs().max())
    )
    # Activations work in place; they must not have written into the images.
    assert torch.equal(reconstruction, before[0])
    assert torch.equal(images, before[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_features_stay_what_they_were_when_they_were_read(
    name: str, classifier_file: ClassifierFile
) -> None:
    network = load_lpips(name, str(classifier_file(name)))
    images = torch.rand(1, 3, 40, 40)
    read = network.read(images)
    x = (images - network.shift) / network.scale
    for number, layer in enumerate(network.features, start=1):
        x = layer(x.clone())  # in place on a copy
        if number in network.ends:
            expected = nn.functional.normalize(x, dim=1)
            torch.testing.assert_close(read[network.ends.index(number)], expected)
    assert len(read) == len(network.heads) == len(TRUNKS[name].channels)


def test_training_mode_changes_nothing(network: LPIPS) -> None:
    holder = nn.Sequential(network)
    images, others = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    before = network(images, others)
    holder.train()
    assert not any(module.training for module in network.modules())
    assert torch.equal(network(images, others), before)


def test_it_is_frozen(network: LPIPS) -> None:
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_gradients_go_to_the_first_alone(network: LPIPS) -> None:
    first = torch.rand(1, 3, 32, 32, requires_grad=True)
    second = torch.rand(1, 3, 32, 32, requires_grad=True)
    network(first, second).sum().backward()
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    assert second.grad is None


@pytest.mark.parametrize("level", [None, 0.0, -1.0])
def test_equal_images_are_at_distance_0_with_a_finite_gradient(
    level: float | None, network: LPIPS
) -> None:
    images = torch.rand(1, 3, 32, 32) if level is None else torch.full((1, 3, 32, 32), level)
    reconstruction = images.clone().requires_grad_()
    distance = network(reconstruction, images)
    distance.sum().backward()
    assert distance.tolist() == [0.0]
    assert reconstruction.grad is not None
    assert reconstruction.grad.isfinite().all()


def test_features_that_are_all_zero_have_a_finite_gradient(network: LPIPS) -> None:
    network.features[0].bias.fill_(-1e3)  # nothing gets through the first activation
    reconstruction = torch.rand(1, 3, 32, 32, requires_grad=True)
    network(reconstruction, torch.rand(1, 3, 32, 32)).sum().backward()
    assert reconstruction.grad is not None
    assert reconstruction.grad.isfinite().all()


def test_a_gray_image_is_one_of_three_equal_channels(network: LPIPS) -> None:
    network = network.double()
    reconstruction, images = pair(channels=1)
    expected = network(reconstruction.expand(-1, 3, -1, -1), images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(network(reconstruction, images), expected)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(channels: int, network: LPIPS) -> None:
    with pytest.raises(ConfigError, match=f"1 or 3 channels, got {channels}"):
        network(torch.rand(1, channels, 32, 32), torch.rand(1, channels, 32, 32))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smallest_image_fits_and_a_smaller_one_is_refused(name: str) -> None:
    network = LPIPS(network=name)
    side = network.min_size
    assert network(torch.zeros(1, 3, side, 40), torch.zeros(1, 3, side, 40)).shape == (1,)
    with pytest.raises(ConfigError, match=f"at least {side} x {side} px, got {side - 1} x 40"):
        network(torch.zeros(1, 3, side - 1, 40), torch.zeros(1, 3, side - 1, 40))
    with pytest.raises(RuntimeError):  # so the limit is not too strict
        network.features(torch.zeros(1, 3, side - 1, 40))


@pytest.mark.parametrize(("network", "file_of"), [("vgg", "alex"), ("squeeze", "vgg")])
def test_a_file_of_another_network_is_refused(
    network: str, file_of: str, classifier_file: ClassifierFile
) -> None:
    file = classifier_file(file_of)
    with pytest.raises(WeightsError, match=f"cannot use {file}.* weights of {network}") as caught:
        load_lpips(network, str(file))
    assert "\n" not in str(caught.value)


def test_a_tensor_that_could_be_repeated_is_refused(classifier_file: ClassifierFile) -> None:
    weights = torch.load(classifier_file("alex"), weights_only=True)
    weights["features.0.bias"] = torch.zeros(1)
    heads = {
        f"lin{number}.model.1.weight": torch.zeros(1, channels, 1, 1)
        for number, channels in enumerate(TRUNKS["alex"].channels)
    }
    with pytest.raises(RuntimeError, match=r"\[1\] does not fit \[64\]"):
        LPIPS(network="alex").load(weights, heads)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="vgg, alex, squeeze, got 'vgg19'"):
        load_lpips("vgg19", None)
