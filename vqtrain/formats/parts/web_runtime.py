"""onnxruntime-web, which runs the graphs of a page: from a file, the cache, or npm's registry."""

import base64
import gzip
import hashlib
import os
import re
import sys
import tarfile
import urllib.request
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from vqtrain.data.cache import cache_folder, write_whole
from vqtrain.errors import ConfigError, require
from vqtrain.ops.paths import expand
from vqtrain.weights import one_line

NAME, VERSION = "onnxruntime-web", "1.30.0"
PACKAGE = f"{NAME}-{VERSION}.tgz"
# As npm's registry publishes it: npm view onnxruntime-web@1.30.0 dist.integrity
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
REGISTRY = "https://registry.npmjs.org/"
TIMEOUT_S = 60
# This build computes on the GPU by WebGPU and on the CPU by WebAssembly; there on one thread it
# takes about a sixth longer than the build for the CPU alone, and a page needs one file less.
SCRIPT, WASM = "ort.js", "ort.wasm.gz"
MEMBERS = {
    SCRIPT: "package/dist/ort.webgpu.bundle.min.mjs",
    WASM: "package/dist/ort-wasm-simd-threaded.asyncify.wasm",
}
MAP = re.compile(rb"\n//# sourceMappingURL=.*\s*$")


def runtime_files(given: str | None) -> dict[str, bytes]:
    """Return the files of the runtime, by name; the largest one is compressed.

    Args:
        given: Path of the npm package; None for the one in the cache, which is downloaded once.

    Raises:
        ConfigError: If it cannot be had, or it is another one than ``VERSION``.
    """
    package = cached_package() if given is None else expand(given)
    check_package(package, package if given is None else f"runtime={given}")
    with tarfile.open(package) as tar:
        found = {name: tar.extractfile(member) for name, member in MEMBERS.items()}
        files = {name: file.read() for name, file in found.items() if file is not None}
    # It names a file that is not included.
    files[SCRIPT] = MAP.sub(b"\n", files[SCRIPT])
    files[WASM] = gzip.compress(files[WASM], 6, mtime=0)
    return files


def check_package(package: Path, name: object) -> None:
    """Refuse a file that is not the package that was tested.

    Raises:
        ConfigError: If it is another one, or cannot be read.
    """
    try:
        with package.open("rb") as stream:
            digest = sha512(stream.read())
    except OSError as error:
        raise ConfigError(
            f"{name} cannot be read: {error.strerror}; give the file that npm pack "
            f"{NAME}@{VERSION} writes"
        ) from error
    if digest != SHA512:
        raise ConfigError(
            f"{name} is not the package of {NAME} {VERSION}: its sha512 differs; give the file "
            f"that npm pack {NAME}@{VERSION} writes"
        )


def sha512(content: bytes) -> str:
    """Return the hash of a package as npm writes it."""
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


def cached_package() -> Path:
    """Find the package in the folder of caches; download it once for all processes.

    Raises:
        ConfigError: If it cannot be downloaded.
    """
    target = cache_folder() / PACKAGE
    url = f"{registry()}{NAME}/-/{PACKAGE}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            with suppress(NotImplementedError):  # no locks on that disk
                stack.enter_context(FileLock(target.with_suffix(".lock")))
            if not is_intact(target):
                sys.stderr.write(f"downloading {PACKAGE} from {url} to {target}\n")
                with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
                    content = response.read()
                require(sha512(content) == SHA512, "it is another package: its sha512 differs")
                write_whole(target, content)
    except (OSError, ValueError, HTTPException) as error:
        raise ConfigError(
            f"a page needs {NAME} {VERSION}, which cannot be downloaded from {url} to {target}: "
            f"{one_line(error)}; give its package by runtime=PATH (npm pack {NAME}@{VERSION})"
        ) from error
    return target


def is_intact(package: Path) -> bool:
    """Say whether a file is there, and the package that was tested."""
    try:
        check_package(package, package)
    except ConfigError:
        return False
    return True


def registry() -> str:
    """Return the registry that npm is configured with: by a variable, a file, or its default."""
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if os.environ.get(name):
            return f"{os.environ[name].rstrip('/')}/"
    with suppress(OSError, RuntimeError, UnicodeDecodeError):  # no such file, or no home folder
        for line in (Path.home() / ".npmrc").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "registry" and value.strip():
                return f"{value.strip().strip(chr(34)).rstrip('/')}/"
    return REGISTRY
