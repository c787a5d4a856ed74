"""The runtime of a page: where it is looked for, and that no other one is taken."""

import base64
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from vqtrain.errors import ConfigError
from vqtrain.formats.parts import web_runtime
from vqtrain.formats.parts.web_runtime import MEMBERS, PACKAGE, SCRIPT, WASM, runtime_files

SCRIPTED = b"export default 1;\n//# sourceMappingURL=ort.mjs.map\n"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry on the disk, with a package of the right name, and an empty cache."""
    package = tmp_path / "npm" / "onnxruntime-web" / "-" / PACKAGE
    package.parent.mkdir(parents=True)
    with tarfile.open(package, "w:gz") as tar:
        for name, content in ((SCRIPT, SCRIPTED), (WASM, b"wasm" * 100)):
            member = tarfile.TarInfo(MEMBERS[name])
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    monkeypatch.setattr(web_runtime, "SHA512", digest)
    monkeypatch.setenv("VQTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "npm").as_uri())
    return package


def test_it_is_downloaded_once_and_a_damaged_copy_is_replaced(registry, tmp_path, capsys) -> None:
    files = runtime_files(None)
    assert files[SCRIPT] == b"export default 1;\n"  # the map is not included
    assert gzip.decompress(files[WASM]) == b"wasm" * 100
    assert capsys.readouterr().err.count(f"downloading {PACKAGE} from file://") == 1
    kept = registry.rename(tmp_path / "kept.tgz")
    assert runtime_files(None) == files
    assert capsys.readouterr().err == ""
    assert runtime_files(str(kept)) == files
    (tmp_path / "cache" / PACKAGE).write_bytes(b"half")
    kept.rename(registry)
    assert runtime_files(None) == files


def test_what_cannot_be_had_is_said_in_a_line(registry, tmp_path, monkeypatch) -> None:
    registry.unlink()
    with pytest.raises(ConfigError, match=r"cannot be downloaded from file://.*runtime=PATH"):
        runtime_files(None)
    with pytest.raises(ConfigError, match=r"runtime=none cannot be read: No such file"):
        runtime_files("none")
    registry.write_bytes(b"another")
    with pytest.raises(ConfigError, match=r"runtime=.*is not the package of onnxruntime-web 1"):
        runtime_files(str(registry))
    with pytest.raises(ConfigError, match=r"cannot be downloaded .* its sha512 differs"):
        runtime_files(None)
    assert not (tmp_path / "cache" / PACKAGE).exists()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "nowhere")
    with pytest.raises(ConfigError, match=r"from nowhere/onnxruntime-web/-/.*unknown url type"):
        runtime_files(None)


def test_the_registry_is_that_of_npm(tmp_path, monkeypatch) -> None:
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert web_runtime.registry() == web_runtime.REGISTRY
    (tmp_path / ".npmrc").write_text("@mine:registry=http://b\nfund=false\nregistry = http://a/\n")
    assert web_runtime.registry() == "http://a/"
    monkeypatch.setenv("npm_config_registry", "http://c")
    assert web_runtime.registry() == "http://c/"
