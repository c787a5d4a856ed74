"""Each protocol against its own library, with random weights in the published form."""

import io
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vqtrain import weights
from vqtrain.data.decoding.crops import CROPS, adm
from vqtrain.data.decoding.images import ImageTransform
from vqtrain.errors import ConfigError, WeightsError
from vqtrain.metrics import fid as module
from vqtrain.metrics.fid import FID
from vqtrain.metrics.parts.build import describe, load_weights
from vqtrain.metrics.parts.fid_protocols import PROTOCOLS, adm_pixels
from vqtrain.metrics.parts.moments import Moments, frechet_distance
from vqtrain.ops.pixels import to_images

CPU = torch.device("cpu")
COUNT = 6

Loaded = Callable[[str], FID]


def load(word: str, file: Path) -> FID:
    metric = FID(protocol=word)
    load_weights([metric], {PROTOCOLS[word].weights: str(file)}, CPU)
    return metric


@pytest.fixture(scope="session")
def files(inception_file: Path, clean_fid_file: Path) -> dict[str, Path]:
    """The weights of each protocol; those of two libraries are one file, as the published are."""
    return {
        "torch_fidelity": inception_file,
        "adm": inception_file,
        "pytorch_fid": inception_file,
        "clean_fid": clean_fid_file,
    }


@pytest.fixture(scope="session")
def loaded(files: dict[str, Path]) -> Loaded:
    """Load a protocol, once."""
    return cache(lambda word: load(word, files[word]))


def pictures(seed: int) -> Tensor:
    """Pixels of pictures that are neither flat nor square."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(COUNT, 3, 5, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (40, 56), mode="bicubic")
    noise = torch.rand(fine.shape, generator=generator) - 0.5
    return (255 * fine + 40 * seed * noise).round().clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Originals and reconstructions as PNG."""
    found = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"pictures-{seed}")
        for number, pixels in enumerate(pictures(seed)):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
        found.append(str(folder))
    return found[0], found[1]


def moments_of(features: Tensor) -> Moments:
    moments = Moments(dim=FID.dim, device=CPU)
    moments.add(features, torch.ones(len(features), dtype=torch.bool))
    return moments


def fid(protocol: FID) -> float:
    originals = moments_of(protocol.features_of_pixels(pictures(0)))
    return frechet_distance(moments_of(protocol.features(to_images(pictures(1)))), originals)


def by_torch_fidelity(folders: tuple[str, str], file: Path) -> float:
    import torch_fidelity

    found = torch_fidelity.calculate_metrics(
        input1=folders[1],
        input2=folders[0],
        fid=True,
        cuda=False,
        save_cpu_ram=True,  # no worker processes
        cache=False,
        verbose=False,
        feature_extractor_weights_path=str(file),
    )
    return found["frechet_inception_distance"]


def by_pytorch_fid(folders: tuple[str, str], file: Path) -> float:
    from pytorch_fid.fid_score import calculate_fid_given_paths

    # It looks for its weights in torch's cache.
    weights.cache_path("pytorch_fid").parent.mkdir(parents=True)
    weights.cache_path("pytorch_fid").symlink_to(file)
    return calculate_fid_given_paths(
        [folders[1], folders[0]], batch_size=COUNT, device=CPU, dims=FID.dim, num_workers=0
    )


def by_clean_fid(folders: tuple[str, str], file: Path) -> float:
    from cleanfid.fid import compute_fid
    from cleanfid.inception_torchscript import InceptionV3W

    # Its own network; without it, it would be downloaded.
    network = InceptionV3W(str(file.parent), download=False, resize_inside=False)
    return compute_fid(
        folders[1],
        folders[0],
        mode="clean",
        num_workers=0,
        device=CPU,
        verbose=False,
        custom_feat_extractor=network,
    )


Figure = Callable[[tuple[str, str], Path], float]
LIBRARIES = pytest.mark.parametrize(
    ("word", "by_library"),
    [
        ("torch_fidelity", by_torch_fidelity),
        ("pytorch_fid", by_pytorch_fid),
        ("clean_fid", by_clean_fid),
    ],
)


def factors(product: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Write a matrix of low rank as a product of two thin ones of full rank."""
    random = np.random.default_rng(0).standard_normal((len(product), 4 * COUNT))
    basis = np.linalg.qr(product @ random)[0]
    u, sizes, vt = np.linalg.svd(basis.T @ product, full_matrices=False)
    is_there = sizes > 1e-10 * sizes[0]
    return basis @ (u * sizes)[:, is_there], vt[is_there]


def root_of_low_rank(product: np.ndarray, **_: object) -> tuple[np.ndarray, float]:
    """Take the root of a b, which is a (b a)^(-1/2) b."""
    a, b = factors(product)
    values, vectors = np.linalg.eig(b @ a)
    return a @ (vectors * values**-0.5) @ np.linalg.inv(vectors) @ b, 0.0


def eigenvalues_of_low_rank(product: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of a b that are not 0, which are those of b a."""
    a, b = factors(product)
    return np.linalg.eig(b @ a)[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")
@LIBRARIES
def test_fid_is_that_of_the_library(
    word: str,
    by_library: Figure,
    loaded: Loaded,
    files: dict[str, Path],
    folders: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the linear algebra is not the library's.

    Of few pictures, covariances have a low rank. The general routines take half a minute over
    them, and what should be 0 comes out as rounding noise. The test after this one has them.
    """
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("scipy.linalg.sqrtm", root_of_low_rank)
    monkeypatch.setattr("numpy.linalg.eigvals", eigenvalues_of_low_rank)
    expected = by_library(folders, files[word])
    assert expected > 0.01
    assert fid(loaded(word)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:.*disp:DeprecationWarning")  # scipy, of the libraries' use
@pytest.mark.filterwarnings("ignore:Matrix is singular")  # and it is right
@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")
@LIBRARIES
def test_fid_is_that_of_the_library_with_its_own_linear_algebra(
    word: str,
    by_library: Figure,
    loaded: Loaded,
    files: dict[str, Path],
    folders: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # The noise of some 2,000 eigenvalues that should be 0 goes into the library's sum of roots.
    assert fid(loaded(word)) == pytest.approx(by_library(folders, files[word]), rel=1e-4)


@pytest.mark.parametrize("word", PROTOCOLS)
def test_a_perfect_reconstruction_has_the_features_of_its_original(
    word: str, loaded: Loaded
) -> None:
    pixels = pictures(0)[:2]
    made = loaded(word).features(to_images(pixels))
    assert made.shape == (2, FID.dim)
    assert made.dtype == torch.float32
    # Floats in [-1, 1] that are not rounded are the original's but for their last bits.
    tolerance = 1e-4 if word == "pytorch_fid" else 0
    original = loaded(word).features_of_pixels(pixels)
    torch.testing.assert_close(made, original, rtol=tolerance, atol=tolerance)


def test_adm_and_torch_fidelity_have_one_network(loaded: Loaded) -> None:
    pixels = pictures(0)[:1]
    torch.testing.assert_close(
        loaded("adm").features_of_pixels(pixels),
        loaded("torch_fidelity").features_of_pixels(pixels),
        rtol=0,
        atol=0,
    )


def test_pytorch_fid_does_not_round(loaded: Loaded) -> None:
    images = to_images(pictures(0)[:1]) * 0.99  # between the levels
    protocol = loaded("pytorch_fid")
    rounded = protocol.features(to_images(PROTOCOLS["adm"].to_pixels(images)))
    made = protocol.features(images)
    assert not torch.allclose(made, rounded, rtol=1e-4, atol=1e-4)
    expected = protocol.network.network((images + 1) / 2)[0].flatten(1)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("word", PROTOCOLS)
def test_what_is_beyond_the_range_is_clamped(word: str, loaded: Loaded) -> None:
    images = to_images(pictures(0)[:1]) * 1.5
    loaded_word = loaded(word)
    torch.testing.assert_close(
        loaded_word.features(images), loaded_word.features(images.clamp(-1, 1)), rtol=0, atol=0
    )


def test_gray_images_are_three_equal_channels(loaded: Loaded) -> None:
    gray = pictures(0)[:1, :1]
    protocol = loaded("clean_fid")
    torch.testing.assert_close(
        protocol.features_of_pixels(gray),
        protocol.features_of_pixels(gray.repeat(1, 3, 1, 1)),
        rtol=0,
        atol=0,
    )


def test_other_channels_are_refused(loaded: Loaded) -> None:
    with pytest.raises(ConfigError, match="1 or 3 channels, these have 4"):
        loaded("adm").features(-torch.ones(1, 4, 8, 8))


LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


@pytest.mark.parametrize("word", PROTOCOLS)
def test_no_rounding_loses_a_level(word: str) -> None:
    back = PROTOCOLS[word].to_pixels(to_images(LEVELS))
    # Rounded ones are the same; others are so near that no level is mistaken for another.
    torch.testing.assert_close(back.float(), LEVELS.float(), rtol=0, atol=1e-4)
    # Truncation of the same floats, as some evaluators have it, does lose some.
    truncated = (to_images(LEVELS) + 1) / 2 * 255
    assert int((truncated.to(torch.uint8) != LEVELS).sum()) > 50


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1.1, 0),  # -12.25, clamped
        (-1.0, 0),  # 0.5
        (-0.997, 0),  # 0.8825
        (-0.996, 1),  # 1.01
        (0.0, 128),  # 128
        (0.5, 191),  # 191.75
        (0.996, 254),  # 254.99
        (1.0, 255),  # 255.5, clamped
        (3.0, 255),
    ],
)
def test_rounding_of_adm_by_hand(value: float, expected: int) -> None:
    assert adm_pixels(torch.full((1, 1, 1, 1), value)).item() == expected


def test_boxes_of_adm_in_an_evaluation_by_hand() -> None:
    # 1001 x 600 is halved once, to 500 x 300; 300 becomes 256, and 500 * 256 / 300 = 426.67.
    geometry = CROPS[PROTOCOLS["adm"].crop](1001, 600, (256, 256), None)
    assert geometry == adm(1001, 600, (256, 256), None)
    assert geometry.size == (427, 256)
    assert geometry.offset == (85, 0)  # (427 - 256) // 2 = 85


def test_pixels_of_adms_crop_by_hand() -> None:
    # Side 2 of 8 x 4 px: halved by means of 2 x 2 to 4 x 2, and the middle two columns are kept.
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    pixels[:, :, 0] = np.arange(8) * 10  # means 5, 25, 45, 65
    pixels[:, :, 1] = np.arange(4)[:, None] * 10  # means 5, 25
    pixels[0, 2, 2] = 100  # mean 25 of one block
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    transform = ImageTransform(
        image_size=2, channels=3, crop="adm", flip=False, range=None, background="white"
    )
    red, green, blue = transform.decode(stream.getvalue(), None).tolist()
    assert red == [[25, 45], [25, 45]]
    assert green == [[5, 5], [25, 25]]
    assert blue == [[25, 0], [0, 0]]


@pytest.mark.parametrize("word", PROTOCOLS)
def test_pixels_where_images_are_meant_are_refused(word: str, loaded: Loaded) -> None:
    protocol = loaded(word)
    pixels = pictures(0)[:1]
    with pytest.raises(TypeError):
        protocol.features(pixels)
    for wrong in (pixels / 255, pixels.float(), pixels.double() / 255):
        with pytest.raises(ValueError, match=r"in \[-1, 1\], got pixels"):
            protocol.features(wrong)


@pytest.mark.parametrize("word", PROTOCOLS)
def test_floats_where_pixels_are_meant_are_refused(word: str, loaded: Loaded) -> None:
    with pytest.raises(TypeError):
        loaded(word).features_of_pixels(to_images(pictures(0)[:1]))


def without_network(word: str, monkeypatch: pytest.MonkeyPatch) -> FID:
    """A protocol whose features are the mean of each channel."""
    mean = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    protocol = FID(protocol=word)
    monkeypatch.setattr(protocol, "network", lambda pixels: mean(pixels.float()), raising=False)
    return protocol


@pytest.mark.parametrize(
    ("low", "high"), [(0, 255), (0, 3), (250, 255), (128, 255), (128, 128), (255, 255), (0, 0)]
)
def test_dark_and_bright_pictures_raise_no_alarm(
    low: int, high: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = without_network("adm", monkeypatch)
    pixels = torch.randint(low, high + 1, (2, 3, 9, 9), dtype=torch.uint8)
    made = protocol.features(to_images(pixels))
    torch.testing.assert_close(made, pixels.float().mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.25, -0.5])
def test_plain_images_of_any_float_raise_no_alarm(
    value: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = without_network("torch_fidelity", monkeypatch)
    made = protocol.features(torch.full((1, 3, 4, 4), value, dtype=dtype))
    assert made.tolist() == [[round((value + 1) * 127.5)] * 3]


@pytest.mark.parametrize("word", PROTOCOLS)
def test_a_protocol_says_how_it_was_measured(
    word: str, loaded: Loaded, files: dict[str, Path]
) -> None:
    said = describe(loaded(word), {PROTOCOLS[word].weights: str(files[word])})
    library = {"adm": "torch-fidelity"}.get(word, word.replace("_", "-"))
    assert said["protocol"] == word
    assert said["library"] == f"{library} {version(library)}"
    assert said["weights"] == f"{files[word].name}, not the published file"
    assert len(said["weights_sha256"]) == 64
    assert {"rounding", "resize", "crop_in_papers", "dtype"} < set(said)
    assert said["crop_in_papers"] == ("adm" if word == "adm" else "resize")


def test_an_unknown_protocol_is_one_line() -> None:
    with pytest.raises(ConfigError, match="unknown protocol 'clean-fid', did you mean 'clean_fid'"):
        FID(protocol="clean-fid")


@pytest.mark.parametrize("word", PROTOCOLS)
def test_a_missing_library_is_one_line(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"protocol={word} needs .*: pip install") as caught:
        FID(protocol=word)
    assert '"vqtrain[evaluate]"' in str(caught.value)


@pytest.mark.parametrize("word", PROTOCOLS)
def test_a_damaged_file_is_one_line(word: str, files: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "cut.pth"
    file.write_bytes(files[word].read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"^cannot read .*cut\.pth: it is damaged"):
        load(word, file)


@pytest.mark.parametrize("word", PROTOCOLS)
def test_weights_of_another_network_are_one_line(word: str, tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.ones(2)}, file)
    with pytest.raises(WeightsError, match=r"^cannot (use|read) .*other\.pth: it"):
        load(word, file)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_another_torchscript_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))
    with pytest.raises(WeightsError, match=r"^cannot use .*other\.pt: .*inception-2015-12-05\.pt"):
        load("clean_fid", file)
