"""JSON files of results, read as types."""

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from vqtrain.errors import ConfigError

Result = TypeVar("Result")


def read_json(kind: type[Result], file: Path) -> Result:
    """Read a JSON file as a dataclass; keys that it does not have are left out.

    Raises:
        ConfigError: If the file cannot be read, or does not fit.
    """
    try:
        return TypeAdapter(kind).validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise ConfigError(f"cannot read the results in {file}: {what}") from error
