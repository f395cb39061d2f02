"""Models and datasets by their name on the Hugging Face hub and a commit: from the mirror, the cache, or the hub.

directory = hub_dir("Qwen/Qwen2.5-3B-Instruct", "aa8e72537993ba99e69dfaafa59ed015b17504d1")
"""

import functools
from pathlib import Path

from cong.errors import UserError
from cong.models.mirror import mirror


def hub_dir(repo: str, revision: str, *, kind: str = "model") -> Path:
    """Return the local directory of a model or dataset: from the mirror, else from the hub or its cache."""
    mirrored = mirror(repo, revision)
    if mirrored is not None:
        return mirrored
    import huggingface_hub

    return Path(huggingface_hub.snapshot_download(repo, revision=revision, repo_type=kind))


@functools.cache
def check_hub(repo: str, revision: str, *, kind: str = "model") -> None:
    """Raise `UserError` when a hub name is available neither from the mirror, nor from the cache, nor from the hub."""
    if mirror(repo, revision) is not None:
        return
    import huggingface_hub

    try:
        huggingface_hub.snapshot_download(repo, revision=revision, repo_type=kind, local_files_only=True)
    except Exception:
        _check_online(repo, revision, kind)


def _check_online(repo: str, revision: str, kind: str) -> None:
    import huggingface_hub

    try:
        huggingface_hub.HfApi().repo_info(repo, revision=revision, repo_type=kind, timeout=2.0)
    except Exception as error:
        raise UserError(
            f"{repo} is not available from the Hugging Face hub ({type(error).__name__}): "
            f"set CONG_MIRROR=DIR, where DIR/{repo} holds a local copy"
        ) from error
