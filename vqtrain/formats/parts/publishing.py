"""Folders on the Hugging Face hub."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from vqtrain.errors import VqtrainError
from vqtrain.formats.base import Exporter
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.formats.parts.card import check_license
from vqtrain.tokenizer.model import Tokenizer


class PublishedExporter(Exporter):
    """A format whose folder can go to the hub.

    Args:
        push: Repository on the hub, ``organization/name``; None for none. One that does not exist
            is made, and only its owner can see it.
        license: See ``Facts``.
        dataset: See ``Facts``.

    Attributes:
        repository_kind: As of ``make_repository``.
    """

    repository_kind: ClassVar[str] = "model"

    def __init__(
        self,
        *,
        push: str | None = None,
        license: str | None = None,  # noqa: A002 - the key's name
        dataset: str | None = None,
    ) -> None:
        check_license(license)
        self.push, self.license, self.dataset = push, license, dataset

    @final
    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write the folder, compare it, and publish it."""
        self.check(tokenizer)
        if self.push is not None:
            make_repository(self.push, self.repository_kind)  # before work that nobody would see
        agreement = self.write(tokenizer, out, images)
        if self.push is not None:
            upload(out, self.push, self.repository_kind)
        return agreement

    @abstractmethod
    def write(
        self, tokenizer: Tokenizer, out: Path, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write a tokenizer and its card, load what was written again, and compare it."""


def make_repository(repository: str, kind: str = "model") -> None:
    """Make a repository on the hub unless it is there; a new one only its owner can see.

    Args:
        repository: ``organization/name``.
        kind: "model", or "space" for an app of Gradio.

    Raises:
        VqtrainError: If nobody is logged in, the hub cannot be reached, or it refuses.
    """
    from huggingface_hub import HfApi, get_token  # nearly half a second, for this alone

    if get_token() is None:
        raise VqtrainError(f"cannot publish {repository}: you are not logged in, run hf auth login")
    try:
        HfApi().create_repo(
            repository,
            private=True,
            exist_ok=True,
            repo_type=kind,
            space_sdk="gradio" if kind == "space" else None,
        )
    except Exception as error:  # of the hub's library and of whichever HTTP client it has
        raise refused(repository, error) from error


def upload(folder: Path, repository: str, kind: str = "model") -> None:
    """Bring the files of a folder to a repository on the hub.

    Args:
        folder: Its files.
        repository: ``organization/name``.
        kind: As of ``make_repository``.

    Raises:
        VqtrainError: If that fails.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().upload_folder(repo_id=repository, folder_path=folder, repo_type=kind)
    except Exception as error:  # as above
        raise refused(repository, error) from error


def refused(repository: str, error: Exception) -> VqtrainError:
    """Say in a sentence why a repository cannot be made or filled."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return VqtrainError(f"cannot publish {repository}: {reason[0]}")
