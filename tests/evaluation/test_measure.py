"""What one pass measures, against measuring image by image, and over several ranks."""

import json
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.metrics
import torch
from PIL import Image
from torch import Tensor, nn

from vqtrain import Tokenizer
from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import DataError
from vqtrain.evaluation.baselines import BASELINES
from vqtrain.evaluation.comparison import OWN, Clock, Comparison
from vqtrain.evaluation.measure import Measured, describe_ids, entropy_bits, measure
from vqtrain.evaluation.reference import Reference
from vqtrain.metrics.fid import FID
from vqtrain.metrics.parts.codebook_usage import IdCounts
from vqtrain.metrics.parts.fid_protocols import PROTOCOLS
from vqtrain.metrics.psnr import PSNR
from vqtrain.metrics.ssim import SSIM
from vqtrain.ops.pixels import to_images, to_pixels

CPU = torch.device("cpu")
NETWORK = {"channels": 8, "block_channels": 4, "num_blocks": 1}
METRICS = [PSNR(), SSIM()]
PREPARATION = ImageTransform(
    image_size=16, channels=3, crop="resize", flip=False, range=None, background="white"
)
DIM = 12  # 3 channels of 2 x 2 px


def build(codebook: dict[str, object]) -> Tokenizer:
    tokenizer = Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": {**NETWORK, "in_channels": 3, "num_downsamplings": 2},
        },
        codebook=codebook,
        decoder={
            "kind": "vqvae",
            "arguments": {**NETWORK, "out_channels": 3, "num_upsamplings": 2},
        },
        channels=3,
    ).eval()
    with torch.no_grad():
        tokenizer.project_in.weight.mul_(30)  # untrained, it would use one id alone
    return tokenizer


FSQ = {"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}}
KL = {"kind": "kl", "arguments": {"size": None, "dim": 4, "kl_weight": 1e-6}}


@pytest.fixture
def index(pictures: Path) -> SampleIndex:
    return open_samples(str(pictures), role="validation").select(np.arange(10))


class Means(nn.Module):
    """Takes the means of the quarters of a picture for features."""

    seen: list[int]

    def __init__(self, _file: Path) -> None:
        super().__init__()
        self.seen = []

    def forward(self, pixels: Tensor) -> Tensor:
        """Return them, and remember how many there were."""
        self.seen.append(len(pixels))
        return nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 2).flatten(1)


@pytest.fixture
def fid(monkeypatch: pytest.MonkeyPatch) -> FID:
    """FID with a network that takes no time."""
    own = replace(PROTOCOLS["torch_fidelity"], network=Means)
    monkeypatch.setitem(PROTOCOLS, "torch_fidelity", own)
    monkeypatch.setattr(FID, "dim", DIM)
    fid = FID()
    fid.load({"inception": Path()})
    return fid


def measure_on(index: SampleIndex, tokenizer: Tokenizer, **changes: object) -> Measured:
    settings = {
        "transform": PREPARATION,
        "num_tokens": None,
        "batch_size": 4,
        "num_workers": 0,
        "metrics": METRICS,
        "references": {},
        "baselines": {},
        "bits_per_pixel": 0.25,
        "autocast": nullcontext,
        "progress": lambda _done, _total: None,
        **changes,
    }
    return measure(tokenizer, index, **settings)


def test_changed_ids_are_decoded_and_counted_by_the_place_of_their_image(
    index: SampleIndex,
) -> None:
    tokenizer = build(FSQ)

    def change(token_ids: Tensor, places: range) -> Tensor:
        return torch.tensor([*places]).view(-1, 1, 1, 1).expand_as(token_ids)

    measured = measure_on(index, tokenizer, change=change)
    for place, value in enumerate(measured.tokenizer.values["psnr"]):
        decoded = tokenizer.decode(torch.full((1, 4, 4), place))
        original = PREPARATION.decode(index.read(place), None)[None]
        assert value == pytest.approx(float(PSNR()(to_pixels(decoded), original)), abs=1e-4)
    assert measured.codebook is not None
    rest = tokenizer.vocab_size - 10
    assert measured.codebook["histogram"] == [[16] * 10 + [0] * rest]


def distance_by_numpy(first: np.ndarray, second: np.ndarray) -> float:
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0))
    difference = first.mean(0) - second.mean(0)
    return float(difference @ difference + np.trace(a) + np.trace(b) - 2 * roots.sum())


def test_figures_are_those_of_images_one_by_one(index: SampleIndex, fid: FID) -> None:
    tokenizer = build(FSQ)
    found = measure_on(index, tokenizer, metrics=[*METRICS, fid])
    originals, made, ids = [], [], []
    for image_id in range(10):
        pixels = PREPARATION.decode(index.read(image_id), None)[None]
        token_ids = tokenizer.encode(to_images(pixels))
        originals.append(pixels)
        made.append(to_pixels(tokenizer.decode(token_ids)))
        ids.append(token_ids.flatten())
    expected = [
        skimage.metrics.peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=255)
        for a, b in zip(originals, made, strict=True)
    ]
    assert found.image_ids == list(range(10))
    assert found.tokenizer.values["psnr"] == pytest.approx(expected, rel=1e-12)
    assert found.tokenizer.means["psnr"] == pytest.approx(np.mean(expected), rel=1e-12)
    features = [Means(Path())(torch.cat(each)).double().numpy() for each in (made, originals)]
    assert found.tokenizer.distances["rfid@10"] == pytest.approx(
        distance_by_numpy(*features), rel=1e-6, abs=1e-7
    )
    counts = torch.bincount(torch.cat(ids), minlength=tokenizer.vocab_size)
    assert len(counts.nonzero()) > 2
    assert found.codebook is not None
    assert found.codebook["histogram"] == [counts.tolist()]
    assert found.codebook["tokens"] == 10 * 16
    assert list(found.seconds) == ["reading", "tokenizer", "codes", "psnr", "ssim", "rfid"]


def compare(fid: FID, images: Tensor, made: Tensor) -> Comparison:
    comparison = Comparison([*METRICS, fid], known={}, clock=Clock(CPU), device=CPU)
    comparison.add(images, made, torch.ones(len(images), dtype=torch.bool), {})
    return comparison


def smooth(count: int, size: int) -> Tensor:
    corners = torch.randint(0, 256, (count, 3, 4, 4)).float()
    larger = nn.functional.interpolate(corners, size=size, mode="bicubic")
    return to_images(larger.clamp(0, 255).to(torch.uint8))


def test_images_that_are_kept_have_the_best_figures_there_are(fid: FID) -> None:
    images = smooth(6, 16)
    _, results = compare(fid, images, images).gather()
    assert results[OWN].values == {"psnr": [100.0] * 6, "ssim": pytest.approx([1.0] * 6, abs=1e-12)}
    assert 0 <= results[OWN].distances["rfid@6"] < 1e-3


@pytest.mark.slow
def test_images_that_are_kept_have_no_distance_in_inception_either(inception_file: Path) -> None:
    images = smooth(5, 32)
    fid = FID()
    fid.load({"inception": inception_file})
    results = compare(fid, images, images).gather()[1]
    assert 0 <= results[OWN].distances["rfid@5"] < 1e-3


def test_baselines_are_measured_on_the_same_pictures(index: SampleIndex, fid: FID) -> None:
    found = measure_on(index, build(FSQ), metrics=[*METRICS, fid], baselines=BASELINES)
    pixels = torch.stack([PREPARATION.decode(index.read(number), None) for number in range(10)])
    for word, baseline in BASELINES.items():
        results = [baseline(pixels[i : i + 1], 0.25, (4, 4)) for i in range(10)]
        made = torch.cat([picture for picture, _ in results])
        values = found.baselines[word].values
        assert values["psnr"] == PSNR()(made, pixels).tolist()
        assert values["bits_per_pixel"] == [rate for _, rate in results]
        features = [Means(Path())(each).double().numpy() for each in (made, pixels)]
        expected = distance_by_numpy(*features)
        assert found.baselines[word].distances["rfid@10"] == pytest.approx(
            expected, rel=1e-6, abs=1e-7
        )
        assert word in found.seconds


def test_originals_that_are_known_are_not_computed_again(index: SampleIndex, fid: FID) -> None:
    assert isinstance(fid.network, Means)
    place = Reference(index_digest="0", metric=fid, described={}, device=CPU, transform=PREPARATION)
    known = {"metrics": [fid], "references": {"rfid": place}}
    first = measure_on(index, build(FSQ), **known)
    assert fid.network.seen == [4] * 6
    torch.manual_seed(1)
    other = build(FSQ)
    second = measure_on(index, other, **known)
    assert fid.network.seen == [4] * 9
    assert first.tokenizer.distances != second.tokenizer.distances
    alone = measure_on(index, other, metrics=[*METRICS, fid])
    assert second.tokenizer.distances == alone.tokenizer.distances


def test_a_damaged_image_counts_for_nothing_and_is_told_once(
    pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in (1, 3):
        picture = Image.open(pictures / f"picture-{number:02d}.png")
        picture.save(folder / f"{number}.png")
    for number in (2, 4):  # the last one fills up the batch as well
        (folder / f"{number}.png").write_bytes(b"no picture")
    found = measure_on(open_samples(str(folder), role="validation"), build(FSQ), batch_size=3)
    assert found.image_ids == [0, 2]
    assert len(found.tokenizer.values["psnr"]) == 2
    assert [fault.key for fault in found.faults] == ["2", "4"]
    assert found.codebook is not None
    assert found.codebook["tokens"] == 2 * 16


def test_nothing_but_damaged_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"none of 1 images can be used; 'bad' in .*bad\.png: no JPEG, PNG"
    ):
        measure_on(open_samples(str(tmp_path), role="validation"), build(FSQ))


def test_a_continuous_codebook_has_no_figures_of_ids(index: SampleIndex) -> None:
    assert measure_on(index, build(KL)).codebook is None


def test_entropy_and_histogram_are_those_worked_out_by_hand() -> None:
    used = IdCounts(num_codebooks=2, size=4)
    used.add(torch.tensor([[[0, 0, 1, 2], [3, 3, 3, 3]]]))
    found = describe_ids(used)
    assert found is not None
    # Shares of 1/2, 1/4, 1/4 have 1.5 bits, and one id alone has none.
    assert found["entropy_bits"] == pytest.approx((1.5 + 0) / 2)
    assert found["perplexity"] == pytest.approx((2**1.5 + 1) / 2)
    assert found["usage"] == (3 / 4 + 1 / 4) / 2
    assert found["top1_share"] == (1 / 2 + 1) / 2
    assert found["histogram"] == [[2, 1, 1, 0], [0, 0, 0, 4]]
    assert (found["tokens"], found["ids_seen"]) == (4, [3, 1])
    assert entropy_bits(torch.ones(8, dtype=torch.int64)) == pytest.approx(3.0)


def test_large_codebooks_are_told_of_without_a_histogram() -> None:
    for size, is_listed in ((2**16, True), (2**16 + 1, False), (2**30, False)):
        used = IdCounts(num_codebooks=1, size=size)
        used.add(torch.tensor([[[0, 5]]]))
        found = describe_ids(used)
        assert found is not None
        assert (found["histogram"] is not None) is is_listed
        assert found["entropy_bits"] == pytest.approx(1.0)


def test_a_part_within_another_counts_as_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 4.0, 10.0, 11.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock(CPU)
    with clock.part("outer"), clock.part("inner"):
        pass
    with clock.part("outer"):
        pass
    assert clock.seconds == {"outer": 4.0}


SCRIPT = """
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from vqtrain import Tokenizer
from vqtrain.data.decoding.base import Transform
from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.sources.find import open_samples
from vqtrain.evaluation.baselines import BASELINES
from vqtrain.evaluation.measure import measure
from vqtrain.metrics.fid import FID
from vqtrain.metrics.parts.fid_protocols import PROTOCOLS
from vqtrain.metrics.psnr import PSNR
from vqtrain.metrics.ssim import SSIM

class Means(torch.nn.Module):
    def __init__(self, _file):
        super().__init__()
    def forward(self, pixels):
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 2).flatten(1)

PROTOCOLS["torch_fidelity"] = replace(PROTOCOLS["torch_fidelity"], network=Means)
FID.dim = 12
fid = FID()
fid.load({"inception": Path()})
found = measure(
    Tokenizer.from_pretrained(TOKENIZER),
    open_samples(PICTURES, role="validation"),
    transform=ImageTransform(image_size=16, channels=3, crop="resize", flip=False, range=None,
                            background="white"),
    batch_size=4,
    num_workers=0,
    metrics=[PSNR(), SSIM(), fid],
    references={},
    baselines={"down_up": BASELINES["down_up"]},
    bits_per_pixel=0.25,
    num_tokens=None,
    autocast=nullcontext,
    progress=lambda done, total: None,
)
if rank == 0:
    results = {"own": found.tokenizer, "down_up": found.baselines["down_up"]}
    plain = {name: [dict(r.values), r.means, r.distances["rfid@10"]] for name, r in results.items()}
    told = [plain, found.codebook, [list(found.image_ids), [fault.key for fault in found.faults]]]
    Path(folder, "found.json").write_text(json.dumps(told))
"""


@pytest.mark.ddp
def test_ranks_agree_with_one_whatever_each_of_them_has(
    run_ranks: Callable[[str, int], Path], pictures: Path, tmp_path: Path
) -> None:
    # Of 10 images and a damaged one in batches of 4, two ranks have 6 and 4; four have 4, 4, 2 and
    # none but the damaged one, which fills up the batches of two of them.
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(10):
        shutil.copy(pictures / f"picture-{number:02d}.png", folder)
    (folder / "picture-10.png").write_bytes(b"no picture")
    build(FSQ).save_pretrained(tmp_path / "tokenizer")
    script = f"TOKENIZER, PICTURES = {str(tmp_path / 'tokenizer')!r}, {str(folder)!r}\n{SCRIPT}"
    texts = [(run_ranks(script, n) / "found.json").read_text() for n in (1, 2, 4)]
    results, codebooks, image_ids = zip(*map(json.loads, texts), strict=True)
    assert image_ids[0] == [list(range(10)), ["picture-10"]]
    assert image_ids[0] == image_ids[1] == image_ids[2]
    assert codebooks[0] == codebooks[1] == codebooks[2]
    for name in ("own", "down_up"):
        values, means, distance = results[0][name]
        assert math.isfinite(distance)
        for other in results[1:]:
            assert other[name][:2] == [values, means]  # to the last bit
            assert other[name][2] == pytest.approx(distance, rel=1e-9)
            assert f"{other[name][2]:.4f}" == f"{distance:.4f}"
