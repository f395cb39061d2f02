"""Sends an exported model to the Hugging Face hub."""

import re
from pathlib import Path

from cong.errors import UserError

REPO = re.compile(r"[\w.-]+/[\w.-]+")


def check_push(repo: str) -> None:
    """Raise `UserError` when a name is none, or there is no token to write with."""
    import huggingface_hub

    if not REPO.fullmatch(repo):
        raise UserError(f"{repo!r} is no name of a model on the hub: write OWNER/NAME")
    if huggingface_hub.get_token() is None:
        raise UserError("the hub takes a model with a token alone: set HF_TOKEN, or run `hf auth login`")


def push(directory: Path, repo: str, *, private: bool = True) -> str:
    """Upload a directory; return the address of the model. Raise `UserError` when the hub refuses it."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    api = huggingface_hub.HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=directory)
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"the hub did not take {repo}: {str(error).splitlines()[0]}") from error
    return str(address)
