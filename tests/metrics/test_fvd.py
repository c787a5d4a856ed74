"""FVD: what its protocols do to clips, by hand; its files, and its distance."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vqtrain import weights
from vqtrain.errors import ConfigError, WeightsError
from vqtrain.evaluation.comparison import OWN, Clock, Comparison
from vqtrain.metrics.fvd import FVD
from vqtrain.metrics.parts.build import describe, load_weights, why_not
from vqtrain.metrics.parts.fvd_protocols import PROTOCOLS, resized
from vqtrain.metrics.parts.i3d import I3D
from vqtrain.ops.pixels import to_images

CPU = torch.device("cpu")


class Keeps(nn.Module):
    """Keeps what it is given."""

    def forward(self, clips: Tensor) -> Tensor:
        """Return features of some kind."""
        self.seen = clips
        return clips.new_zeros(len(clips), 400)


def with_stub(protocol: str) -> tuple[FVD, Keeps]:
    metric, network = FVD(protocol=protocol), Keeps()
    metric.network = network
    return metric, network


def test_the_shorter_side_is_resized_and_the_middle_of_the_longer_kept() -> None:
    # Doubled, a column is at (k + 1/2) / 2 - 1/2 of the old ones; of 2 * 120 those from 8 on stay.
    columns = torch.arange(120, dtype=torch.uint8).expand(1, 3, 2, 112, 120)
    at = (torch.arange(8, 232) + 0.5) / 2 - 0.5
    expected = (at / 255 - 0.5) * 2
    for turned in (False, True):
        clips = columns.mT if turned else columns
        found = resized(clips.contiguous())
        assert found.shape == (1, 3, 2, 224, 224)
        along = (found.mT if turned else found)[0, 0, 0]
        torch.testing.assert_close(along, expected.expand(224, 224), rtol=0, atol=2e-6)
    # A third has its centers on every third pixel, and without antialiasing sees no other.
    fine = torch.randint(0, 256, (1, 3, 1, 672, 672), dtype=torch.uint8)
    expected = fine[..., 1::3, 1::3].float() / 255 * 2 - 1
    torch.testing.assert_close(resized(fine), expected, rtol=0, atol=2e-6)
    # 100 * 224 / 90 is 248.9, and the middle 224 of 249 begin at 12.
    assert resized(columns[..., :90, :100].contiguous()).shape[3:] == (224, 224)


def test_each_protocol_rounds_reconstructions_as_it_does() -> None:
    made = torch.zeros(1, 1, 10, 224, 224)  # between the levels 127 and 128
    made[0, 0, 0, 0, :2] = torch.tensor([1.7, -1.3])
    expected = {"styleganv": 0.0, "videogpt": 127 / 127.5 - 1}
    for protocol, value in expected.items():
        metric, network = with_stub(protocol)
        metric.features(made)
        assert network.seen.shape == (1, 3, 10, 224, 224)  # gray is repeated
        assert network.seen[0, 1, 5, 7, 7].item() == pytest.approx(value, abs=1e-6)
        ends = network.seen[0, :, 0, 0, :2]  # clamped
        assert ends.tolist() == [[pytest.approx(1.0), pytest.approx(-1.0)]] * 3
        levels = torch.arange(256, dtype=torch.uint8).repeat(1960).reshape(1, 1, 10, 224, 224)
        metric.features(to_images(levels))
        own = network.seen
        metric.features_of_pixels(levels)
        torch.testing.assert_close(own, network.seen, rtol=0, atol=1e-6)  # no level is lost


def test_the_distance_is_that_of_the_papers_code(i3d_script_file: Path) -> None:
    metric = FVD()
    load_weights([metric], {"i3d_styleganv": str(i3d_script_file)}, CPU)
    originals = torch.randint(0, 256, (6, 3, 10, 12, 16), dtype=torch.uint8)
    made = originals // 2 + torch.randint(0, 99, originals.shape, dtype=torch.uint8)
    comparison = Comparison([metric], known={}, clock=Clock(None), device=CPU)
    for first in (0, 3):
        batch = slice(first, first + 3)
        mask = torch.ones(3, dtype=torch.bool)
        comparison.add(to_images(originals[batch]), to_images(made[batch]), mask, {})
    found = comparison.gather()[1][OWN].distances

    script = weights.read_script(i3d_script_file)
    with torch.no_grad():
        options = {"rescale": False, "resize": False, "return_features": True}
        fake, real = (script(resized(x), **options).double().numpy() for x in (made, originals))
    covariances = [np.cov(x, rowvar=False) for x in (fake, real)]

    def root(matrix: np.ndarray) -> np.ndarray:
        u, sizes, v = np.linalg.svd(matrix)
        return (u * np.where(sizes < 1e-10, sizes, np.sqrt(sizes))) @ v

    half = root(covariances[0])
    trace = np.trace(sum(covariances)) - 2 * np.trace(root(half @ covariances[1] @ half))
    expected = np.square(fake.mean(0) - real.mean(0)).sum() + trace
    assert expected > 1e-3
    assert found == {"rfvd@6": pytest.approx(expected, rel=1e-4)}


def test_the_file_of_videogpt_is_read(tmp_path: Path) -> None:
    published = I3D()
    file = tmp_path / "i3d_pretrained_400.pt"
    state = published.state_dict()
    torch.save({k: v for k, v in state.items() if not k.endswith("tracked")}, file)
    metric = FVD(protocol="videogpt")
    load_weights([metric], {"i3d_videogpt": str(file)}, CPU)
    assert isinstance(metric.network, I3D)
    for name, tensor in metric.network.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    said = describe(metric, {"i3d_videogpt": str(file)})
    assert said["protocol"] == "videogpt"
    assert said["weights"] == "i3d_pretrained_400.pt"
    assert len(said["weights_sha256"]) == 64


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_another_file_is_one_line(tmp_path: Path) -> None:
    other, script = tmp_path / "other.pt", tmp_path / "script.pt"
    torch.save({"logits.conv3d.bias": torch.zeros(600)}, other)
    torch.jit.script(nn.Linear(2, 2)).save(str(script))
    for protocol, file, name in (
        ("videogpt", other, "i3d_pretrained_400.pt"),
        ("styleganv", script, "i3d_torchscript.pt"),
    ):
        with pytest.raises(WeightsError) as raised:
            FVD(protocol=protocol).load({PROTOCOLS[protocol].weights: file})
        assert str(raised.value) == f"cannot use {file}: it is not the I3D that {name} is"
    with pytest.raises(WeightsError, match="it is damaged or is not TorchScript"):
        FVD().load({"i3d_styleganv": other})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_missing_file_is_one_line_and_nothing_is_downloaded(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    key = PROTOCOLS[protocol].weights
    known, path = weights.KNOWN[key], weights.cache_path(key)
    with pytest.raises(WeightsError) as raised:
        load_weights([FVD(protocol=protocol)], {}, CPU)
    assert str(raised.value) == (
        f"{known.name} is not here: download it from {known.url} to {path}, "
        f"or set weights.{key}=PATH"
    )


def test_what_it_does_not_take_is_refused() -> None:
    metric, _ = with_stub("styleganv")
    clips = torch.zeros(1, 3, 9, 8, 8)
    with pytest.raises(ConfigError, match="rfvd needs clips of at least 10 frames, these have 9"):
        metric.features(clips)
    assert why_not(metric, 3, (64, 64)) == "rfvd takes clips, with 3 axes; these have 2"
    with pytest.raises(ValueError, match=r"floats in \[-1, 1\], got pixels as floats"):
        metric.features(torch.full((1, 3, 10, 8, 8), 200.0))
    with pytest.raises(ConfigError, match="unknown protocol 'videogtp', did you mean 'videogpt'"):
        FVD(protocol="videogtp")
