"""What many tests share: a seed, tiny pictures, the command line in a process of its own, ranks."""

import importlib.util
import io
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache as once
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import jaxtyping
import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_SPEC = importlib.util.spec_from_file_location("zygotes", Path(__file__).with_name("zygote.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
zygotes = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(zygotes)

# The profiler of torch reads this once in a process, whichever test uses it first.
QUIET_PROFILER = "KINETO_LOG_LEVEL"
os.environ.setdefault(QUIET_PROFILER, "99")

# Ray's workers would give way to the tests beside them, so that one waited for minutes.
os.environ.setdefault("RAY_worker_niceness", "0")

# Ignored where nohup or a shell's & has started the tests, and vqtrain honors that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = [
    "encoder.channels=8",
    "encoder.block_channels=4",
    "encoder.num_blocks=1",
    "decoder.channels=8",
    "decoder.block_channels=4",
    "decoder.num_blocks=1",
    "codebook.size=16",
    "codebook.dim=4",
    "data.image_size=16",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.max_steps=4",
    "trainer.log_every=1",
    "trainer.validate_every=2",
    "trainer.checkpoint_every=2",
]
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
NOT_FOUND = "this test needs Chromium: apt-get install chromium, or put google-chrome on the PATH"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def first_variables() -> dict[str, str]:
    """Return the environment before the first test."""
    return dict(os.environ)


@pytest.fixture(autouse=True)
def _variables() -> Iterator[None]:
    """Take back what a test sets in the environment, as commands do for their own process."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's own caches out of the tests."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("VQTRAIN_CACHE", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    return folder


@pytest.fixture(scope="session", autouse=True)
def _equal_words_are_composed_once() -> Iterator[None]:
    """Keep what Hydra composes: it takes 0.1 s or 0.2 s, and most tests type what others type."""
    from vqtrain.app.parts import compose  # slow to import

    known: dict[tuple[str, ...], bytes] = {}
    call_hydra = compose.call_hydra

    def call(name: str, overrides: Sequence[str], config_dir: Path | None) -> object:
        if config_dir is not None or any(
            word.endswith(f"={compose.INHERITED}") for word in overrides
        ):
            return call_hydra(name, overrides, config_dir)  # of files that tests write
        words = (name, *overrides)
        if words not in known:
            known[words] = pickle.dumps(call_hydra(name, overrides, None))
        return pickle.loads(known[words])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "call_hydra", call)
        yield


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Check no types: while a graph is traced, its sizes are symbols and no whole numbers."""
    jaxtyping.config.update("jaxtyping_disable", True)
    logging.getLogger("torch.__trace").setLevel(logging.CRITICAL)  # pytest would keep all of it
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 48 smooth colored pictures of 24 x 20 px."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(48):
        corners = random.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        picture = Image.fromarray(corners).resize((24, 20), Image.Resampling.BICUBIC)
        picture.save(folder / f"picture-{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory, encode_video: Callable[..., bytes]) -> Path:
    """A folder of 40 videos of 9 frames of 24 x 20 px, smooth pictures that move."""
    folder = tmp_path_factory.mktemp("videos")
    random = np.random.default_rng(0)
    for number in range(40):
        corners = Image.fromarray(random.integers(0, 256, (3, 5, 3), dtype=np.uint8))
        wide = np.asarray(corners.resize((48, 20), Image.Resampling.BICUBIC))
        frames = np.stack([wide[:, 2 * frame : 2 * frame + 24] for frame in range(9)])
        (folder / f"video-{number:02d}.mp4").write_bytes(encode_video(frames))
    return folder


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 48 sounds of 0.1 s, each a sine; half of them at 16 kHz, the others at 8."""
    import soundfile  # takes 0.1 s

    folder = tmp_path_factory.mktemp("sounds")
    for number in range(48):
        rate = 8000 * (1 + number % 2)
        sine = 0.5 * np.sin(np.arange(rate // 10) * 2 * np.pi * (100 + 20 * number) / rate)
        soundfile.write(folder / f"sound-{number:02d}.wav", sine, rate)
    return folder


@pytest.fixture(scope="session")
def hums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 6 hums of 8 kHz, from 0.2 s on, and a file that is none."""
    from vqtrain.drawing.files import to_wav

    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    for number in range(6):
        times = torch.arange(1600 + 250 * number) / 8000
        hum = 0.5 * torch.sin(2 * torch.pi * (200 + 100 * number) * times)
        noise = 0.05 * torch.from_numpy(random.standard_normal(len(times))).float()
        (folder / f"hum-{number}.wav").write_bytes(to_wav((hum + noise)[None], 8000))
    (folder / "none.wav").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="session")
def sound_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of a tokenizer of sounds, of 4 values a token, with two codebooks."""
    from vqtrain import Tokenizer

    torch.manual_seed(0)
    network = {"channels": 8, "num_blocks": 1, "dilation_base": 3, "activation": "relu"}
    network |= {"strides": [[2, 2]], "latent_channels": 4}
    depths = {"size": 64, "num_codebooks": 2, "shared": False, "shrink": 0.5}
    fsq = {"kind": "fsq", "size": None, "levels": None, "eps": 1e-3}
    tokenizer = Tokenizer(
        encoder={"kind": "jukebox", "arguments": {"in_channels": 1, **network}},
        codebook={"kind": "residual", "arguments": {**depths, "inner": fsq}},
        decoder={"kind": "jukebox", "arguments": {"out_channels": 1, **network}},
        channels=1,
        pixel_range=(-1.0, 1.0),
        training={"sample_rate": 8000, "length": 1600},
    )
    with torch.no_grad():
        tokenizer.project_in.weight.mul_(30)  # so that many ids are used
        tokenizer.project_out.weight.mul_(3)
    folder = tmp_path_factory.mktemp("sound") / "tokenizer"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ramps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 4 clips of 12 frames of 24 x 20 px, 8 a second, that grow light."""
    from vqtrain.drawing.files import to_mp4

    folder = tmp_path_factory.mktemp("clips")
    ramp = torch.linspace(-1, 1, 12)[None, :, None, None] * torch.linspace(0.2, 1, 24)
    for number in range(4):
        frames = ramp.roll(5 * number, dims=3).expand(3, -1, 20, -1)
        (folder / f"ramp-{number}.mp4").write_bytes(to_mp4(frames, fps=8.0))
    return folder


@pytest.fixture(scope="session")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of a tokenizer of clips, with tokens of 2 frames of 4 x 4 px."""
    from vqtrain import Tokenizer

    torch.manual_seed(0)
    tokenizer = Tokenizer(
        encoder={
            "kind": "videogpt",
            "arguments": {
                "in_channels": 3,
                "channels": 8,
                "num_blocks": 1,
                "downsampling": [2, 4, 4],
            },
        },
        codebook={"kind": "fsq", "arguments": {"size": 64, "levels": None, "eps": 1e-3}},
        decoder={
            "kind": "videogpt",
            "arguments": {
                "out_channels": 3,
                "channels": 8,
                "num_blocks": 1,
                "upsampling": [2, 4, 4],
            },
        },
        channels=3,
        training={"image_size": 16, "crop": "resize", "frames": 4, "fps": 8.0, "stride": 1},
    )
    with torch.no_grad():  # so that many ids are used
        tokenizer.project_in.weight.mul_(30)
        latents = tokenizer.eval().latents(torch.rand(4, 3, 4, 16, 16) * 2 - 1)
        tokenizer.project_in.bias.sub_(latents.mean(dim=(0, 2, 3, 4)))
    folder = tmp_path_factory.mktemp("clip") / "tokenizer"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_run(pictures: Path) -> tuple[str, ...]:
    """Overrides for a training run of four tiny steps."""
    return (f"data.train={pictures}", *TINY)


@pytest.fixture
def tiny(tiny_run: tuple[str, ...]) -> list[str]:
    """The same, to be changed."""
    return [*tiny_run]


@pytest.fixture(scope="session")
def encode_video() -> Callable[..., bytes]:
    """Encode frames as a video: uint8 [t, h, w, 3], or the gray levels of flat ones of 32 x 24 px.

    A key frame is every ``key_every``-th one; ``times`` are in ms.
    """
    import av  # takes 0.1 s

    def encode(
        frames: np.ndarray | Sequence[int],
        form: str = "mp4",
        codec: str = "libx264",
        *,
        rate: int = 10,
        times: Sequence[int] | None = None,
        key_every: int = 4,
        rotation: int = 0,
        options: Mapping[str, str] | None = None,
    ) -> bytes:
        pixels = np.asarray(frames, dtype=np.uint8)
        if pixels.ndim == 1:
            pixels = np.broadcast_to(pixels[:, None, None, None], (len(pixels), 24, 32, 3))
        file = io.BytesIO()
        with av.open(file, "w", format=form) as container:
            track = container.add_stream(codec, rate=rate, options=dict(options or {}))
            track.height, track.width = pixels.shape[1:3]
            track.pix_fmt = {"gif": "gray", "libx264rgb": "rgb24"}.get(codec, "yuv420p")
            track.codec_context.gop_size = key_every
            track.codec_context.thread_count = 1
            if times is not None:
                track.time_base = track.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                track.set_display_rotation(rotation)
            for number, array in enumerate(pixels):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
                if times is not None:
                    frame.pts, frame.time_base = times[number], Fraction(1, 1000)
                container.mux(track.encode(frame.reformat(format=track.pix_fmt)))
            container.mux(track.encode())
        return file.getvalue()

    return encode


def environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """One thread, no checks of shapes and nothing that quiets torch, as in real use."""
    kept = {name: value for name, value in variables.items() if name != QUIET_PROFILER}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


StartPython = Callable[..., subprocess.Popen[str]]
SmallPart = Callable[..., dict[str, Any]]
RunCommand = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def start_python(first_variables: dict[str, str]) -> Iterator[StartPython]:
    """Start a script or a module that uses vqtrain, with options of ``Popen``; see ``zygote.py``.

    ``variables`` are more of the environment, that nothing reads before the script begins. Where a
    test has changed others, or gives an environment of its own, the process is a new one.
    """
    zygote = None
    one_at_a_time = Lock()

    def start(
        *words: str | Path, variables: Mapping[str, str] | None = None, **options: object
    ) -> subprocess.Popen[str]:
        nonlocal zygote
        command, shared = [sys.executable, *map(str, words)], environment()
        settings = {"text": True, "env": {**shared, **(variables or {})}, **options}
        if sys.platform == "linux" and not {"env", "preexec_fn"} & options.keys():
            with one_at_a_time:
                zygote = zygote or zygotes.start(environment(first_variables))
            if zygote.suits(shared):
                return zygotes.ForkedProcess(zygote, command, **settings)
        return subprocess.Popen(command, **settings)  # type: ignore[call-overload]  # options of Popen

    yield start
    if zygote is not None:
        zygote.close()


@pytest.fixture
def vqtrain(tmp_path: Path, start_python: StartPython) -> RunCommand:
    """Run ``vqtrain`` in a process of its own, in an empty folder."""

    def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        files = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        settings = {"cwd": tmp_path, **files, **options}
        with start_python("-m", "vqtrain", *words, **settings) as process:
            try:
                out, err = process.communicate(timeout=240)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture
def start_vqtrain(tmp_path: Path, start_python: StartPython) -> StartPython:
    """Start ``vqtrain`` and leave it running; ``starts_new`` says that what it starts is new."""

    def start(*words: str, starts_new: bool = False) -> subprocess.Popen[str]:
        return start_python(
            *("-m", "vqtrain", *words),
            variables={zygotes.STARTS_NEW: "1"} if starts_new else {},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a group of its own, so that signals can go to all of it
        )

    return start


RANK_PRELUDE = """
import os, sys
from datetime import timedelta
import torch
import torch.distributed as dist
rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world_size > 1 and __name__ == "__main__":  # not in a worker that was spawned
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank,
                            world_size=world_size, timeout=timedelta(seconds=60))
"""


@pytest.fixture
def run_ranks(tmp_path: Path, start_python: StartPython) -> Callable[[str, int], Path]:
    """Run a script on several gloo ranks; it sees ``rank``, ``world_size`` and ``folder``."""

    def run(script: str, world_size: int) -> Path:
        folder = tmp_path / f"world-{world_size}"
        folder.mkdir()
        file = folder / "script.py"
        # None leaves while another still talks to it, which at times ends that one by a C++ error.
        ending = "\nif dist.is_initialized(): dist.barrier(); dist.destroy_process_group()\n"
        file.write_text(RANK_PRELUDE + script + ending)
        processes = [
            start_python(file, str(rank), str(world_size), str(folder), stderr=subprocess.PIPE)
            for rank in range(world_size)
        ]
        errors = [process.communicate(timeout=180)[1] for process in processes]
        assert all(process.returncode == 0 for process in processes), "\n".join(errors)
        return folder

    return run


TRUNKS = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}
MODELS = {**TRUNKS, "resnet50": "resnet50", "convnext": "convnext_small"}


def random_tensor(network: str, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Weights that keep the size of what goes through; those of unused heads take no room."""
    if network in TRUNKS and not name.startswith("features."):
        return torch.zeros(1).expand(shape)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if len(shape) == 1 and name.endswith(("weight", "running_var")):  # of a normalization
        return 1 + 0.1 * torch.rand(shape, generator=generator)
    scale = (2 / shape[1:].numel()) ** 0.5 if len(shape) == 4 else 0.1
    return scale * torch.randn(shape, generator=generator)


@pytest.fixture(scope="session")
def classifier_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a classifier's file with random weights, in the form in which torchvision publishes it.

    Takes ``vgg`` (whose file is in torch's old format), ``alex``, ``squeeze``, ``resnet50`` or
    ``convnext``.
    """

    @once
    def write(network: str) -> Path:
        generator = torch.Generator().manual_seed(0)
        with torch.device("meta"):
            model = getattr(torchvision.models, MODELS[network])(weights=None)
        weights = {
            name: random_tensor(network, name, tensor.shape, generator)
            for name, tensor in model.state_dict().items()
        }
        file = tmp_path_factory.mktemp("classifiers") / f"{network}.pth"
        torch.save(weights, file, _use_new_zipfile_serialization=network != "vgg")
        return file

    return write


# Of parts: sizes that take little time, by group and by kind.
SMALL = {
    "encoder": {"channels": 8, "num_blocks": 1},
    "decoder": {"channels": 8, "num_blocks": 1},
    "discriminator": {"channels": 4},
    "vit": {"dim": 16, "depth": 1, "num_heads": 2},
    "multiscale": {"num_layers": 2},
    "latent_query": {"dim": 16, "depth": 1, "num_heads": 2, "num_tokens": 4},
    "titok": {"dim": 16, "depth": 1, "num_heads": 2, "num_tokens": 4, "num_codes": 7},
    "timm": {"model": "test_vit", "frozen": False},
    "rectified": {
        "rectifier": {"kind": "rectifier", "channels": 8, "num_blocks": 1},
        "inner": {
            "kind": "cnn",
            "channels": 8,
            "multipliers": [1, 2],
            "num_blocks": 1,
            "attention_factors": [2],
            "latent_channels": 4,
            "dropout": 0.0,
        },
    },
    "nearest_codes": {"decay_steps": 10},
    "dino": {"model": "test_vit", "size": 32, "blocks": [5]},
    "alignment": {"model": "test_vit", "size": 32},
    "slurm": {"cluster": "local", "gpus": 0},
}
# Files of torchvision; other pretrained networks have random weights.
FILES = {"lpips": ["vgg"], "gram": ["vgg"], "resnet50": ["resnet50"], "convnext": ["convnext"]}
LOSSES = ("loss", "adversarial", "alignment")
# Keys of these that the run takes out.
WEIGHTS = (
    *("weight", "start_step", "ramp_steps"),
    *("adaptive", "min_ratio", "max_ratio"),
)


@pytest.fixture
def small_part(classifier_file: Callable[[str], Path]) -> SmallPart:
    """Specify a small part of any group and kind, for samples of the axes that it declares.

    Takes the group, the kind, and changes of its arguments.
    """
    from vqtrain.build import configs_folder, in_context, resolve, split_kind
    from vqtrain.layers.promises import size_for

    def specify(group: str, kind: str, **changes: object) -> dict[str, Any]:
        (file,) = configs_folder().glob(
            f"loss/*/{kind}.yaml" if group in LOSSES else f"{group}/{kind}.yaml"
        )
        config = {} if group == "command" else yaml.safe_load(file.read_text())
        for key in (*WEIGHTS, *(["layer", "feature_weight"] if group == "adversarial" else [])):
            config.pop(key, None)
        context = {
            "in_channels": 3,
            "out_channels": 3,
            "sample_size": size_for(resolve(group, kind)),
            "sample_rate": 16_000,
        }
        context |= {"aligned_channels": 4, "aligned_grid": (4, 4)}
        context["weights"] = {name: str(classifier_file(name)) for name in FILES.get(kind, [])}
        given = {**SMALL.get(group, {}), **SMALL.get(kind, {}), **changes}
        small = {key: value for key, value in given.items() if key in config}
        return in_context(group, split_kind({"kind": kind, **config, **small}), context)

    return specify


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write Inception's file with random weights, in the form in which it is published.

    They keep the size of what goes through, so that no image loses itself in it.
    """
    from torch_fidelity import FeatureExtractorInceptionV3  # slow to import

    class Empty(FeatureExtractorInceptionV3):
        """Keeps the weights it begins with, where the original has none without a file."""

        def load_state_dict(self, state_dict: object) -> None:
            """Load nothing."""
            del state_dict

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Empty("inception", ["2048"], feature_extractor_weights_path=nothing)
    generator = torch.Generator().manual_seed(0)
    weights = network.state_dict()
    for tensor in weights.values():
        if tensor.ndim == 4:
            scale = (2 / tensor[0].numel()) ** 0.5
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
    file = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(weights, file)
    return file


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.fail(NOT_FOUND, pytrace=False)
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator["Browser"]:
    """A Chromium of a module's own."""
    from playwright.sync_api import sync_playwright  # takes 0.2 s

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()
