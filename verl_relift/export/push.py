"""Uploads an exported folder to the Hugging Face hub with the user's own token."""

from pathlib import Path

from .errors import ExportError


def require_token() -> None:
    """Check, before any work is done, that there is a token.

    Raises:
        ExportError: there is none.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise ExportError("--push needs a token with write access: run `hf auth login`, or set HF_TOKEN")


def push(folder: Path, name: str, private: bool) -> str:
    """Create the model repository if it does not exist, and upload the folder.

    Args:
        folder: the exported folder.
        name: `USER/NAME` of the repository.
        private: whether a new repository is private.

    Returns:
        A sentence with the model's address.

    Raises:
        ExportError: the hub rejects the upload or cannot be reached.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=name, commit_message="Export from verl_relift")
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        raise ExportError(f"pushing {folder} to {name} failed: {error}; the folder itself is complete") from error
    return f"pushed to {api.endpoint}/{name}"
