"""Where pretrained weights are found: a given path, the standard caches, or one download."""

import hashlib
import importlib.util
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import ModuleType
from urllib.error import HTTPError

import torch
from filelock import FileLock
from jaxtyping import Shaped
from torch import Tensor, nn

from vqtrain.errors import WeightsError


@dataclass(frozen=True, kw_only=True)
class KnownFile:
    """A published file of weights.

    Attributes:
        name: Its file name, as in torch's cache.
        url: Where it is published.
        sha256: The first digits of its hash; None if none is published. Such a file is not
            downloaded, as nothing would tell it from another.
    """

    name: str
    url: str
    sha256: str | None


# The file of weights in a repository of the Hugging Face hub.
HUB_FILE = "model.safetensors"
TORCH = "https://download.pytorch.org/models"
KNOWN = {
    "vgg": KnownFile(
        name="vgg16-397923af.pth", url=f"{TORCH}/vgg16-397923af.pth", sha256="397923af"
    ),
    "alex": KnownFile(
        name="alexnet-owt-7be5be79.pth", url=f"{TORCH}/alexnet-owt-7be5be79.pth", sha256="7be5be79"
    ),
    "squeeze": KnownFile(
        name="squeezenet1_1-b8a52dc0.pth",
        url=f"{TORCH}/squeezenet1_1-b8a52dc0.pth",
        sha256="b8a52dc0",
    ),
    "resnet50": KnownFile(
        name="resnet50-0676ba61.pth", url=f"{TORCH}/resnet50-0676ba61.pth", sha256="0676ba61"
    ),
    "convnext": KnownFile(
        name="convnext_small-0c510722.pth",
        url=f"{TORCH}/convnext_small-0c510722.pth",
        sha256="0c510722",
    ),
    "inception": KnownFile(
        name="weights-inception-2015-12-05-6726825d.pth",
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        sha256="6726825d",
    ),
    # The same file as the one before, under another name.
    "pytorch_fid": KnownFile(
        name="pt_inception-2015-12-05-6726825d.pth",
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d",
    ),
    # It is a program, so its whole hash is checked.
    "clean_fid": KnownFile(
        name="inception-2015-12-05.pt",
        url="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
        "inception-2015-12-05.pt",
        sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    ),
    "i3d_styleganv": KnownFile(
        name="i3d_torchscript.pt",
        url="https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt",
        sha256=None,
    ),
    "i3d_videogpt": KnownFile(
        name="i3d_pretrained_400.pt",
        url="https://drive.google.com/file/d/1mQK8KD8G6UWRa5t87SRMm5PVXtlpneJT",
        sha256=None,
    ),
}


# Names of files that are not here; None where such a file is downloaded.
_absent: ContextVar[list[str] | None] = ContextVar("absent", default=None)


class NotHereError(WeightsError):
    """A file that is not here, where none is downloaded."""


@contextmanager
def without_downloads() -> Iterator[list[str]]:
    """Return a context in which a missing file raises ``NotHereError`` instead of a download.

    There the networks of the loss keep random weights, which take as long to compute with. It gives
    a list that grows by the names of the missing files.
    """
    absent: list[str] = []
    token = _absent.set(absent)
    try:
        yield absent
    finally:
        _absent.reset(token)


def _refuse_download(name: str, file: str) -> None:
    """Raise an error where nothing is downloaded."""
    absent = _absent.get()
    if absent is not None:
        absent.append(name)
        raise NotHereError(f"weights.{name}: {file} is not here")


def cache_path(name: str) -> Path:
    """Return where torch, and so other programs on this machine, keep a downloaded file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / KNOWN[name].name


def find(name: str, given: str | None) -> Path:
    """Find a file of weights; download it into torch's cache if it is missing.

    Call it before a run starts: a download can take minutes, and it can fail.

    Args:
        name: A key of ``KNOWN``.
        given: Path of the file; None to look in the cache.

    Raises:
        WeightsError: If the given file is not there, the download fails, or there is none.
    """
    if given is None:
        target = cache_path(name)
        if not target.is_file():
            known = KNOWN[name]
            _refuse_download(name, known.name)
            if known.sha256 is None:
                raise WeightsError(
                    f"{known.name} is not here: download it from {known.url} to {target}, or set "
                    f"weights.{name}=PATH"
                )
            _download(known, target, name)
        return target
    return _given_file(name, given)


def find_on_hub(name: str, repository: str, given: str | None) -> Path:
    """Find weights of the Hugging Face hub; download them into its cache if they are missing.

    Call it before a run starts, as ``find``.

    Args:
        name: The key of the group ``weights`` that can name another file.
        repository: ``org/name``, which holds ``HUB_FILE``.
        given: Path of the file; None to look in the cache.

    Raises:
        WeightsError: If the given file is not there, or the download fails.
    """
    if given is not None:
        return _given_file(name, given)
    # Importing it takes nearly half a second.
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE)
    target = cache / repo_folder_name(repo_id=repository, repo_type="model")
    source = hf_hub_url(repository, HUB_FILE)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{target.name}.lock"):
            cached = try_to_load_from_cache(repository, HUB_FILE)
            if isinstance(cached, str):
                return Path(cached)
            _refuse_download(name, f"{HUB_FILE} of {repository}")
            sys.stderr.write(f"downloading {HUB_FILE} from {source} to {target}\n")
            return Path(hf_hub_download(repository, HUB_FILE))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        # The hub's own error says only that there is no file; its cause says why.
        reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise WeightsError(
            f"cannot download {HUB_FILE} from {source} to {target}: {one_line(reason)}; "
            f"to use another copy, set weights.{name}=PATH"
        ) from error


def _given_file(name: str, given: str) -> Path:
    """Check that a path that the user gave is a file."""
    try:
        file = Path(given).expanduser()
        is_there = file.is_file()
    except (OSError, RuntimeError) as error:  # no permission, or an unknown home folder
        raise WeightsError(f"weights.{name} cannot be read: {one_line(error)}") from error
    if not is_there:
        raise WeightsError(f"weights.{name} must be a file, and there is none at {given!r}")
    return file


def _download(known: KnownFile, target: Path, name: str) -> None:
    """Download a file, once for all processes of a machine that want it at the same time.

    Raises:
        WeightsError: If it fails; then the target does not exist.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if target.is_file():  # another process has downloaded it
                return
            sys.stderr.write(f"downloading {known.name} from {known.url} to {target}\n")
            torch.hub.download_url_to_file(known.url, str(target), hash_prefix=known.sha256)
    except (OSError, RuntimeError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise WeightsError(
            f"cannot download {known.name} from {known.url} to {target}: {one_line(error)}; "
            f"to use another copy, set weights.{name}=PATH"
        ) from error


def read(file: Path) -> dict[str, Shaped[Tensor, "..."]]:
    """Read named tensors from a file of ``torch.save``, without running code in it.

    Torch's old format, in which some files are published, is read too. Tensors of the new format
    stay on the disk until they are used.

    Raises:
        WeightsError: If the file is damaged, or holds anything but named tensors.
    """
    try:
        # Only the new format, a zip, can be mapped.
        mmap = zipfile.is_zipfile(file)
        weights = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # arbitrary bytes can raise any error in the unpickler
        raise WeightsError(f"cannot read {file}: it is damaged or holds no weights") from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()
    ):
        raise WeightsError(f"cannot use {file}: it holds more than named tensors")
    return dict(weights)


def read_script(file: Path) -> nn.Module:
    """Load a network that was published in TorchScript: weights, and the program that uses them.

    Torch's own interpreter runs the program. It calls no Python, but torch does not promise that a
    hostile program does no harm: load only files that you trust.

    Raises:
        WeightsError: If the file is damaged, or is not TorchScript.
    """
    try:
        with warnings.catch_warnings():
            # Torch advises against making such files; this one is published in no other form.
            warnings.filterwarnings("ignore", ".*torch.jit.load.* is deprecated", FutureWarning)
            network: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]  # torch's
                str(file), map_location="cpu"
            )
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"cannot read {file}: it is damaged or is not TorchScript") from error
    return network


def sha256(file: Path) -> str:
    """Return the hash of a file, which records the weights that a number was measured with.

    Raises:
        WeightsError: If it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror}") from error


def describe(name: str, file: Path) -> dict[str, str]:
    """Say which weights a number is measured with, and if they are known not to be the published.

    Args:
        name: A key of ``KNOWN``.
        file: Where they are.

    Raises:
        WeightsError: If they cannot be read.
    """
    digest = sha256(file)
    is_published = digest.startswith(KNOWN[name].sha256 or "")
    return {
        "weights": file.name + ("" if is_published else ", not the published file"),
        "weights_sha256": digest,
    }


@contextmanager
def instead_of_download(module: ModuleType, function: str, result: object) -> Iterator[None]:
    """Replace a library's own download of weights by those of a file that was read safely.

    Args:
        module: A module of the library.
        function: The name of its function that downloads.
        result: What it returns within the context, whatever its arguments.
    """
    own = getattr(module, function)
    setattr(module, function, lambda *_, **__: result)
    try:
        yield
    finally:
        setattr(module, function, own)


def lpips_heads(network: str) -> dict[str, Shaped[Tensor, "..."]]:
    """Read the heads of LPIPS from the ``lpips`` package, without importing it.

    Args:
        network: ``vgg``, ``alex`` or ``squeeze``.

    Raises:
        WeightsError: If the package is not installed.
    """
    package = importlib.util.find_spec("lpips")
    for folder in (package and package.submodule_search_locations) or []:
        file = Path(folder) / "weights" / "v0.1" / f"{network}.pth"
        if file.is_file():
            return read(file)
    raise WeightsError("LPIPS takes its heads from the package lpips: pip install lpips")


def one_line(error: Exception) -> str:
    """Return the message of an error, without line breaks."""
    return " ".join(str(error).split())[:200] or type(error).__name__
