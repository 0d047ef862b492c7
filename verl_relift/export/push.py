"""Upload of an exported folder to the Hugging Face hub, with the user's own token."""

from __future__ import annotations

from pathlib import Path

from .errors import ExportError


def require_token() -> None:
    """Raise ExportError, before any work is done, when there is no token to push with."""
    from huggingface_hub import get_token

    if not get_token():
        raise ExportError("--push needs a token with write access: run `hf auth login`, or set HF_TOKEN")


def push(folder: Path, name: str, private: bool) -> str:
    """Create the model repository if need be and upload the folder; returns its address.

    Raises ExportError when the hub refuses or cannot be reached.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=name, commit_message="Export from verl_relift")
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        raise ExportError(f"push of {folder} to {name} failed: {error}; the exported folder is complete") from error
    return f"pushed to {api.endpoint}/{name}"
