"""What the experiments of the paper's tables are made with: families, seeds, and the models of the methods.

def cells(scale, *, setups: Setups = Setups()):      # its fields are axes: --set families=qwen --set seeds=0,1,2
    return [cell for setup in setups.of(scale) for cell in judged_cells(setup.transition, rows=setup.rows())]
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cong import methods
from cong.models import Model
from cong.scales import Scale

Row = tuple[dict[str, Any], Model]
"""What distinguishes a row of a table, and its model."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a family and a seed give to an experiment, and where its cells lie."""

    transition: methods.Transition
    alpha: float
    beta: float
    axes: dict[str, Any]

    @cached_property
    def models(self) -> dict[str, Model]:
        """The models of the weak-to-strong methods by the names of their rows."""
        return weak_to_strong(self.transition, alpha=self.alpha, beta=self.beta)

    def rows(self, **axes: Any) -> list[Row]:
        """Return the rows of the weak-to-strong methods, with further axes."""
        return [({"method": name, **axes, **self.axes}, model) for name, model in self.models.items()]


@dataclass(frozen=True, kw_only=True)
class Setups:
    """The families and seeds of a table, and how ConG is set in it: axes that several experiments share."""

    families: tuple[str, ...] | None = None
    """None takes those of the scale."""
    seeds: tuple[int, ...] = (0,)
    alpha: float | None = None
    """None takes the scale's of the weak family."""
    beta: float = 0.5
    weak: str | None = None
    strong: str | None = None
    """Sizes; None takes those of the main table."""

    def of(self, scale: Scale) -> Iterator[Setup]:
        """Yield every family with every seed."""
        for family in self.families or scale.sizes:
            for seed in self.seeds:
                t = between(family, weak=self.weak, strong=self.strong, scale=scale, seed=seed)
                alpha = scale.alpha[family.partition("-")[0]] if self.alpha is None else self.alpha
                axes = {"family": family, "seed": seed, "alpha": alpha, "beta": self.beta}
                yield Setup(transition=t, alpha=alpha, beta=self.beta, axes=axes)


def across(scale: Scale) -> tuple[str, ...]:
    """Return all pairs of two families of a scale, such as `llama-qwen`: a weak Llama and a strong Qwen."""
    return tuple(f"{weak}-{strong}" for strong in scale.sizes for weak in scale.sizes if weak != strong)


def weak_to_strong(t: methods.Transition, *, alpha: float, beta: float) -> dict[str, Model]:
    """Return the models of a weak-to-strong table by the names of its rows."""
    return {
        "Base": methods.base(t),
        "Weak SFT (pre)": methods.weak_sft_pre(t),
        "Weak SFT (post)": methods.weak_sft_post(t),
        "WeakTeacher": methods.weak_teacher(t),
        "AuxConf": methods.aux_conf(t),
        "WSPO": methods.wspo(t),
        "ConG-S": methods.cong_s(t, alpha=alpha),
        "ConG": methods.cong(t, alpha=alpha, beta=beta),
    }


def between(family: str, *, weak: str | None, strong: str | None, scale: Scale, seed: int) -> methods.Transition:
    """Return the transition of a family, or of two such as `llama-qwen`; None takes the sizes of the main table."""
    ours, theirs = family_pair(family, scale=scale)
    return methods.transition(
        ours,
        weak=weak or scale.sizes[ours][0],
        strong=strong or scale.sizes[theirs][1],
        strong_family=theirs if theirs != ours else None,
        scale=scale,
        seed=seed,
    )


def family_pair(family: str, *, scale: Scale) -> tuple[str, str]:
    """Return the families of the weak and of the strong model, of one such as `llama-qwen`, or twice the same."""
    ours, _, theirs = family.partition("-")
    unknown = {ours, theirs or ours} - set(scale.sizes)
    if unknown:
        pairs = (f"{one}-{other}" for one in scale.sizes for other in scale.sizes if one != other)
        raise ValueError(
            f"families={family}: unknown {', '.join(unknown)}; there are {', '.join((*scale.sizes, *pairs))}"
        )
    return ours, theirs or ours


def rising(family: str, *, scale: Scale) -> list[tuple[str, str]]:
    """Return all pairs of a weak and a larger strong size of a family, or of two such as `llama-qwen`."""
    ours, theirs = family_pair(family, scale=scale)
    ladder, other = scale.sizes_of(ours), scale.sizes_of(theirs)
    if ours == theirs:
        return list(itertools.combinations(ladder, 2))
    return [(weak, strong) for weak in ladder for strong in other if _millions(weak) < _millions(strong)]


def _millions(size: str) -> float:
    """Return the parameters that the name of a size states: names of two families have no other order."""
    named = re.fullmatch(r"(\d+(?:\.\d+)?)([MB])", size)
    if named is None:
        raise ValueError(f"size {size}: sizes of two families are compared by their names, such as 135M or 1.5B")
    return float(named[1]) * (1000 if named[2] == "B" else 1)
