"""Model handles: a stage that makes a checkpoint, a checkpoint directory, or a pinned revision on the Hugging Face hub.

Where the hub cannot be reached, `CONG_MIRROR=DIR` makes `Qwen/Qwen2.5-3B-Instruct` mean a copy in `DIR`: see
`cong/models/mirror.py`.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.graph.fingerprint import fields_of
from cong.graph.stage import Context, Stage
from cong.models.adapters import adapter_base, check_fits, holds_adapter, merge
from cong.models.architecture import PUBLISHED, Architecture, read_architecture
from cong.models.chat import CHAT_DATE, asks_for_date, has_template
from cong.models.digests import directory_digest
from cong.models.hub import check_hub, hub_dir
from cong.models.mirror import MIRROR, copy_identity, copy_of, mirror
from cong.models.packaged import PackagedModel
from cong.models.standin import check_unchanged
from cong.models.weightfiles import check_weight_files

MODEL = "model"
"""Subdirectory of a stage in which its checkpoint lies."""
ASKING_FOR_DATE = ("meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-3B-Instruct")
"""Models on the hub whose chat template asks what day it is: they are identified before anything is downloaded."""


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A checkpoint directory in Hugging Face format. Its identity is what it holds, not where it lies."""

    path: str

    def identity(self) -> Any:
        """Return a digest of the names, sizes and contents of all files, and the date of its chats."""
        return self._identity

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        # It travels with the stage: on another node the files need not be read again.
        path = self.checked_path()
        # Adapters: 1 rounded the frequencies of positions to the dtype of the weights, and could change the base.
        loading = {"loading": 2} if self.is_adapter else {}
        return {"checkpoint": directory_digest(path), **loading, **_chat_identity(asks_for_date(path))}

    def checked_path(self) -> Path:
        """Return the directory; raise `UserError` when there is no checkpoint in it."""
        path = Path(self.path).expanduser()
        if not path.is_dir():
            raise UserError(f"missing checkpoint: {self.path} is not a directory")
        if not (path / "config.json").is_file() and not self.is_adapter:
            raise UserError(f"missing checkpoint: {self.path} holds no config.json")
        if not any(path.glob("*.safetensors")):
            raise UserError(f"missing checkpoint: {self.path} holds no .safetensors weights")
        return path

    @property
    def is_adapter(self) -> bool:
        """Whether the directory holds a LoRA adapter, which is the aligned model of a pair with its base."""
        return holds_adapter(Path(self.path).expanduser())

    @property
    def name(self) -> str:
        """Return its name for a reader."""
        return self.path

    def directory(self) -> Path:
        """Return where it lies; raise `UserError` when there is no checkpoint."""
        return self.checked_path()

    at_hand = directory

    def check(self, *, adapter: bool = False) -> None:
        """Raise `UserError` when a file is missing or cut off, or it is an `adapter` where none can be used."""
        path = self.checked_path()
        check_weight_files(path)
        if self.is_adapter:
            _check_adapter(path, allowed=adapter)

    def architecture(self) -> Architecture | None:
        """Return its numbers, None where its configuration does not say them."""
        return read_architecture(Path(self.path).expanduser() / "config.json")


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A model on the Hugging Face hub at a commit."""

    repo: str
    revision: str
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"revision {self.revision!r} of {self.repo} is not a commit of 40 hexadecimal digits")

    def identity(self) -> Any:
        """Return the fields, the date of its chats where its template asks for one, and what stands for it here."""
        return {"class": "HubModel", **fields_of(self), **_chat_identity(self.repo in ASKING_FOR_DATE), **self._copy}

    @functools.cached_property
    def _copy(self) -> dict[str, Any]:
        # It travels with the stage: whoever reads the weights compares it with what there is then.
        return copy_identity(self.repo, self.revision)

    @property
    def is_adapter(self) -> bool:
        """Whether it is a LoRA adapter, as far as that is known before it is there: never."""
        return False

    @property
    def name(self) -> str:
        """Return its name for a reader."""
        return self.repo

    def directory(self) -> Path:
        """Return where it lies, downloading it where needed; raise `UserError` when it is not what was planned."""
        self._check_planned()
        return hub_dir(self.repo, self.revision)

    def at_hand(self) -> Path | None:
        """Return where it lies on this machine, without asking the hub."""
        if (mirrored := mirror(self.repo, self.revision)) is not None:
            return mirrored
        import huggingface_hub
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(huggingface_hub.snapshot_download(self.repo, revision=self.revision, local_files_only=True))
        except LocalEntryNotFoundError:
            return None

    def check(self, *, adapter: bool = False) -> None:
        """Raise `UserError` when it is not available, or is not what was planned."""
        self._check_planned()
        check_hub(self.repo, self.revision)
        if "stand_in" in self._copy:
            check_unchanged(hub_dir(self.repo, self.revision))

    def architecture(self) -> Architecture | None:
        """Return its numbers without downloading anything, None where they are not known before it is there."""
        mirrored = copy_of(self.repo, self.revision)
        known = read_architecture(mirrored / "config.json") if mirrored else None
        return known or PUBLISHED.get(self.repo)

    def _check_planned(self) -> None:
        there = copy_identity(self.repo, self.revision)
        if there != self._copy:
            raise UserError(
                f"{self.repo} was planned as {_copy_name(self._copy)}, and {MIRROR} of this process gives "
                f"{_copy_name(there)}: results of one are never taken for those of the other"
            )


def _copy_name(copy: dict[str, Any]) -> str:
    if "stand_in" in copy:
        return f"the stand-in from {copy['stand_in']['file']}"
    return f"a copy of no commit ({copy['copy'][:12]})" if copy else "the hub's revision"


def _chat_identity(dated: bool) -> dict[str, str]:
    """What stands in the identity of a checkpoint whose chat template asks what day it is."""
    return {"chat_date": CHAT_DATE} if dated else {}


Checkpoint = LocalModel | HubModel | PackagedModel
Model = Stage | Checkpoint


def model_dir(ctx: Context, model: Model) -> Path:
    """Return the directory of a model's checkpoint with whole weights.

    It is downloaded from the hub, or merged from an adapter and its base, where needed.
    """
    if not isinstance(model, Stage):
        return model.directory()
    base = adapter_base(model)
    return ctx.path(model) / MODEL if base is None else _merged(ctx, model, base)


def _merged(ctx: Context, model: Stage, base: Model) -> Path:
    target = ctx.scratch / "merged" / f"{model.name}-{model.slug}"
    if not target.is_dir():
        target.parent.mkdir(exist_ok=True)
        merge(model_dir(ctx, base), ctx.path(model) / MODEL, target)
    return target


def pair_dirs(ctx: Context, post: Model, pre: Model, *, shared: bool) -> tuple[Path, Path]:
    """Return the directories of a weak pair: with `shared` those of an adapter and its base, if that is what it is."""
    if shared and isinstance(post, Stage) and shares_base(post, pre):
        return ctx.path(post) / MODEL, model_dir(ctx, pre)
    return model_dir(ctx, post), model_dir(ctx, pre)


def shares_base(post: Model, pre: Model) -> bool:
    """Return whether a weak pair is known to be a base, pi_ref, and an adapter on it, pi_r."""
    if isinstance(post, LocalModel):
        return post.is_adapter
    base = adapter_base(post)
    return base is not None and base.identity() == pre.identity()


def check_model(model: Model, *, adapter: bool = False) -> None:
    """Raise `UserError` when a model that no stage makes is not available, or an `adapter` where none can be used."""
    if not isinstance(model, Stage):
        model.check(adapter=adapter)


def _check_adapter(path: Path, *, allowed: bool) -> None:
    if not allowed:
        raise UserError(f"{path} is an adapter: it can only be the aligned model of a weak pair, beside its base")
    kind = json.loads((path / "adapter_config.json").read_text()).get("peft_type")
    if kind != "LORA":
        raise UserError(f"{path} is an adapter of type {kind!r}; only LORA can share the weights of its base")


def root_model(model: Model) -> Model:
    """Follow fine-tuning back to the checkpoint whose tokenizer all its descendants share."""
    parent = getattr(model, "model", None)
    return model if not isinstance(model, Stage) or parent is None else root_model(parent)


def check_pair(post: Model, pre: Model) -> None:
    """Raise `UserError` when a weak pair is known not to be one: two tokenizers, or an adapter of another base."""
    check_same_tokenizer(post, pre)
    if isinstance(post, LocalModel) and post.is_adapter and not isinstance(pre, Stage):
        base = pre.at_hand()
        if base is not None:
            check_fits(post.directory(), base)


def check_chat(model: Model) -> None:
    """Raise `UserError` when a model's checkpoint lies here and has no chat template: no prompt could be formatted."""
    root = root_model(model)
    directory = None if isinstance(root, Stage) or root.is_adapter else root.at_hand()
    if directory is not None and not has_template(directory):
        raise UserError(f"{directory} has no chat template: prompts cannot be formatted; put one into the checkpoint")


def check_same_tokenizer(post: Model, pre: Model) -> None:
    """Raise `UserError` when two models of a weak pair are known to have different tokenizers."""
    first, second = _tokenizer_identity(root_model(post)), _tokenizer_identity(root_model(pre))
    if first is not None and second is not None and first != second:
        raise UserError(
            f"the weak pair has two tokenizers: {describe(post)} and {describe(pre)}; contrastive decoding compares "
            "log-probabilities token by token and needs one vocabulary"
        )


def architecture_of(model: Model) -> Architecture | None:
    """Return a model's numbers, without downloading anything; None where they are not known before it is there."""
    root = root_model(model)
    return getattr(root, "architecture", None) if isinstance(root, Stage) else root.architecture()


def architectures_of(models: Iterable[Model]) -> list[Architecture] | None:
    """Return the numbers of several models, None unless those of all are known."""
    found = [architecture_of(model) for model in models]
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else None


def largest(*models: Model) -> int | None:
    """Return the parameters of the largest model, None where there is none or one is not known."""
    known = architectures_of(models)
    return max(one.parameters for one in known) if known else None


def describe(model: Model) -> str:
    """Return a model's name for a reader."""
    return model.title if isinstance(model, Stage) else model.name


def _tokenizer_identity(model: Model) -> Any:
    if isinstance(model, Stage):
        # A pretraining stage names the tokenizer that it was given; other makers of models are not known.
        tokenizer = getattr(model, "tokenizer", None)
        return tokenizer.fingerprint if isinstance(tokenizer, Stage) else None
    directory = model.at_hand()
    return _vocabulary_digest(directory) if directory else None


def _vocabulary_digest(directory: Path) -> str | None:
    path = directory / "tokenizer.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    # Only which token has which id counts: saving a tokenizer with another version of the library rewrites the rest.
    added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    vocabulary = {"vocabulary": content["model"].get("vocab"), "added": added}
    return hashlib.sha256(json.dumps(vocabulary, sort_keys=True).encode()).hexdigest()
