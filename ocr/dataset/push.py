"""A finished data set folder → the Hugging Face hub."""

from ocr.dataset.config import PrepareConfig
from ocr.errors import UserError


def push(config: PrepareConfig) -> str:
    """Upload the folder in one commit and give back its address; UserError where the hub or the token says no. The folder stays as it is."""
    from httpx2 import HTTPError  # of the hub's own client
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api, repo = HfApi(), str(config.hub_repo)
    try:
        api.create_repo(repo, repo_type="dataset", private=config.hub_private, exist_ok=True)
        api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=config.output, commit_message="Data set prepared by Lipi")
    except (HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, HTTPError) as problem:
        said = str(problem).strip().split("\n")[0] or type(problem).__name__
        raise UserError(
            f"{config.output} is written; {repo} was not pushed: {said}; set HF_TOKEN to a token that may write, and give the command again"
        ) from None
    return f"{api.endpoint}/datasets/{repo}"
