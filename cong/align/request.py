"""What `cong align` is asked for, and the scale that it makes of it.

request = Request(weak=weak, strong=strong, prompts=prompts, reward=reward, alpha=0.4, beta=0.5)
scale = with_setting(request.scale(built_in("small"), name="own"), "sft.epochs=3")
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from cong.data.heldout import HeldOut
from cong.errors import UserError
from cong.experiment import parse
from cong.graph.stage import Stage
from cong.models import Model
from cong.scales import Scale
from cong.scales.hyperparameters import TaskSettings, TrainingSettings
from cong.scoring import Reward
from cong.training import LoRA

FAMILY = "own"
WEAK, STRONG = "weak", "strong"


@dataclass(frozen=True, kw_only=True)
class Request:
    """The models, prompts and reward of a user."""

    weak: Model
    strong: Model
    prompts: Stage
    reward: Reward
    aligned: Model | None = None
    """The weak model after its alignment; None aligns it by DPO."""
    heldout: Stage | None = None
    """None holds a tenth of the prompts out, 500 at most."""
    preferences: Stage | None = None
    """Given pairs for the alignment of the weak model; None samples candidates and labels them by the reward."""
    alpha: float = 0.4
    beta: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha = {self.alpha:g} is not in [0, 1]")
        if not self.beta > 0:
            raise UserError(f"beta = {self.beta:g} is not above 0")

    def scale(self, made: Scale, *, name: str) -> Scale:
        """Return a scale with its hyper-parameters, and the request's models, prompts and reward."""
        models, aligned = {WEAK: self.weak, STRONG: self.strong}, {WEAK: self.aligned}
        rest, heldout = self._parts()
        return dataclasses.replace(
            made,
            name=name,
            model=lambda family, size, seed: models[size],
            aligned=lambda family, size, seed: aligned.get(size),
            prompts=lambda seed: rest,
            heldout=lambda seed: heldout,
            reward=lambda seed: self.reward,
            preferences=None if self.preferences is None else self._given_pairs,
            contests=lambda seed: (),
            second_contests=lambda seed: (),
            tasks=lambda seed: TaskSettings(tasks=()),
            alpha={FAMILY: self.alpha},
            sizes={FAMILY: (WEAK, STRONG)},
            ladder={},
            domains=(),
            # The user knows whether the models are too large for a CPU.
            gpu=False,
        )

    def _given_pairs(self, seed: int) -> Stage:
        assert self.preferences is not None
        return self.preferences

    def _parts(self) -> tuple[Stage, Stage]:
        if self.heldout is not None:
            return self.prompts, self.heldout
        return HeldOut(prompts=self.prompts, part="rest"), HeldOut(prompts=self.prompts, part="held out")


def with_setting(scale: Scale, text: str) -> Scale:
    """Return a scale with one setting changed, such as `sft.epochs=3` or `max_new_tokens=64`."""
    path, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: write SETTING=VALUE, such as sft.epochs=3")
    return _changed(scale, path.split("."), value, given=text)


def with_lora(scale: Scale, *, rank: int) -> Scale:
    """Return a scale whose trainings train adapters of a rank."""
    settings = {name: value for name, value in _fields(scale).items() if isinstance(value, TrainingSettings)}
    adapted = {name: dataclasses.replace(value, lora=LoRA(rank=rank)) for name, value in settings.items()}
    return dataclasses.replace(scale, **adapted)


def _changed(owner: Any, path: list[str], value: str, *, given: str) -> Any:
    name, *inner = path
    known = {key: one for key, one in _fields(owner).items() if _is_set(one)}
    if name not in known or bool(inner) != dataclasses.is_dataclass(known[name]):
        raise UserError(f"--set {given}: {name!r} cannot be set; there are {', '.join(_settable(owner))}")
    if inner:
        return dataclasses.replace(owner, **{name: _changed(known[name], inner, value, given=given)})
    try:
        return dataclasses.replace(owner, **{name: parse(value, get_type_hints(type(owner))[name])})
    except ValueError as error:
        raise UserError(f"--set {given}: {error}") from error


def _fields(owner: Any) -> Mapping[str, Any]:
    return {field.name: getattr(owner, field.name) for field in dataclasses.fields(owner)}


def _is_set(value: Any) -> bool:
    return isinstance(value, int | float | str) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _settable(owner: Any) -> list[str]:
    known = ((name, value) for name, value in _fields(owner).items() if _is_set(value))
    return sorted(f"{name}.*" if dataclasses.is_dataclass(value) else name for name, value in known)
