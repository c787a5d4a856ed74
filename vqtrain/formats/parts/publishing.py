"""Folders on the Hugging Face hub."""

from pathlib import Path

from vqtrain.errors import VqtrainError


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
