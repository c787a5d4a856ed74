"""Errors that no retry would help."""

import pytest

from vqtrain.data.remote.retry import retried
from vqtrain.errors import DataError


def test_missing_credentials_are_named():
    class NoCredentialsError(Exception):
        pass

    def fail() -> None:
        raise NoCredentialsError("Unable to locate credentials")

    with pytest.raises(DataError, match=r"no credentials to read s3://b/a: .*FSSPEC_S3_ANON"):
        retried("s3://b/a", fail, is_known=False)


def test_a_mistake_in_the_program_is_not_repeated():
    calls = []

    def fail() -> None:
        calls.append(1)
        raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        retried("s3://b/a", fail, is_known=True)
    assert calls == [1]
