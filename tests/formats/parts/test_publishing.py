"""What the hub is told of a folder that is no model; of models it is tested by formats."""

from pathlib import Path

import huggingface_hub
import pytest

from vqtrain.formats.parts.publishing import make_repository, upload


def test_options_go_to_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[dict[str, object]] = []

    class Hub:
        """Notes what it is told."""

        def create_repo(self, repo_id: str, **options: object) -> None:
            told.append({"repo_id": repo_id, **options})

        def upload_folder(self, **options: object) -> None:
            told.append(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    make_repository("me/mine", "space")
    upload(tmp_path, "me/mine", "space")
    kept = {"repo_type": "space"}
    assert told == [
        {"repo_id": "me/mine", "private": True, "exist_ok": True, "space_sdk": "gradio"} | kept,
        {"repo_id": "me/mine", "folder_path": tmp_path} | kept,
    ]
