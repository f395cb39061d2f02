"""A model moved on along the way that a training took: two checkpoints in, one out, without any data.

    Extrapolated(model=aligned, start=aligned.model, step=0.5)

ExPO (Zheng et al., 2024, arXiv:2404.16792) takes a model before (theta_sft) and after DPO (theta_dpo):

    theta = theta_dpo + step (theta_dpo - theta_sft)
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Work
from cong.models import Model, check_model, largest, model_dir
from cong.models.handles import MODEL
from cong.models.weightfiles import tensor_shapes
from cong.models.work import weight_bytes

_TIED = "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class Extrapolated(Stage):
    """The weights of `model` moved on by `step` times their difference to those of `start`.

    Computed in float32, one file of weights at a time, and stored in the dtypes of `model`, whose files (shards, index,
    configuration, tokenizer, generation settings) it keeps: with a step of 0 the weights are those of `model`. A step
    of -1 is `start`, one between them an average. Adapters are merged first. Checkpoints whose tensors have other names
    or shapes are refused.
    """

    model: Model
    start: Model
    step: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.step):
            raise ValueError(f"step = {self.step} is not a number")

    def label(self) -> str:
        return f"step={self.step:g}"

    def check(self) -> None:
        for model in (self.model, self.start):
            check_model(model)

    def parameters(self) -> int | None:
        return largest(self.model)

    def work(self, resources: Resources) -> Work:
        return Work(disk_bytes=weight_bytes(self.model))

    @property
    def evaluated_model(self) -> Any:
        return self

    @property
    def trainings(self) -> tuple[Stage, ...]:
        return self.model.trainings if isinstance(self.model, Stage) else ()

    def run(self, ctx: Context) -> None:
        after, before = model_dir(ctx, self.model), model_dir(ctx, self.start)
        check_alike(after, before)
        partial = ctx.out / ".model"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        files = sorted(after.glob("*.safetensors"))
        for done, path in enumerate(files, start=1):
            _move(path, before, partial / path.name, step=self.step)
            ctx.progress(done=done, total=len(files), unit="files")
        for path in after.iterdir():
            if path.is_file() and path not in files:
                shutil.copy(path, partial)
        shutil.rmtree(ctx.out / MODEL, ignore_errors=True)
        partial.rename(ctx.out / MODEL)
        ctx.summary(tensors=len(tensor_shapes(after)), step=self.step)


def check_alike(after: Path, before: Path) -> None:
    """Raise `UserError` in one line unless two checkpoints hold tensors of the same names and shapes."""
    one, other = tensor_shapes(after), tensor_shapes(before)
    # Tied to the embeddings it may be stored in either: as long as it is not in what is kept, it is never read.
    names = sorted((one.keys() ^ other.keys()) - ({_TIED} - one.keys()))
    if names:
        holder, lacking = (after, before) if names[0] in one else (before, after)
        raise UserError(f"two models that cannot be merged: {names[0]} of {holder} is not in {lacking}")
    for name, shape in one.items():
        if shape != other[name]:
            ours, theirs = tuple(shape), tuple(other[name])
            raise UserError(
                f"two models that cannot be merged: {name} has shape {ours} in {after} and {theirs} in {before}"
            )


def _move(path: Path, before: Path, target: Path, *, step: float) -> None:
    """Write one file of weights, moved on from those of the same names in another checkpoint."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    moved = load_file(path)
    for other in sorted(before.glob("*.safetensors")):
        with safe_open(other, framework="pt") as file:
            for name in moved.keys() & set(file.keys()):
                ours = moved[name].float()
                moved[name] = (ours + step * (ours - file.get_tensor(name).float())).to(moved[name].dtype)
    for name, tensor in moved.items():
        if not bool(torch.isfinite(tensor).all()):
            raise FloatingPointError(f"{name} is NaN or infinite after a step of {step:g}")
    save_file(moved, target, metadata={"format": "pt"})
