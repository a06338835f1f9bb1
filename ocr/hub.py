"""A folder → the Hugging Face hub; the token comes from the environment alone."""

from pathlib import Path
from typing import Literal

from ocr.errors import UserError, first_line


def upload(
    folder: Path, repo: str, repo_type: Literal["model", "dataset"], private: bool, message: str
) -> str:
    """Upload the folder in one commit and return its address; the folder stays as it is.

    UserError where the hub refuses, or the token is missing.
    """
    from httpx2 import HTTPError  # raised by the hub's own client
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repo, repo_type=repo_type, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo, repo_type=repo_type, folder_path=folder, commit_message=message
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, HTTPError) as problem:
        raise UserError(
            f"{folder} is written; {repo} was not pushed: {first_line(problem)}; set HF_TOKEN "
            "to a token that may write, and run the command again"
        ) from None
    return f"{api.endpoint}/{'datasets/' if repo_type == 'dataset' else ''}{repo}"
