"""NaN and infinity are no results: what holds one is refused before it enters a mean, a choice or a published model.

check_finite(rows, columns=("reward",), source="Score(exact)")      # None stands for a row that failed, and passes
check_finite_weights(model)
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cong.data.rows import Row

if TYPE_CHECKING:
    import torch


def check_finite(rows: Iterable[Row], *, columns: Sequence[str], source: str) -> None:
    """Raise `FloatingPointError` that names the first prompt whose number in one of `columns` is NaN or infinite."""
    for row in rows:
        for name in columns:
            if row[name] is not None and not math.isfinite(row[name]):
                raise FloatingPointError(f"{source}: {name} of prompt_id {row['prompt_id']!r} is {row[name]}")


def check_finite_weights(model: "torch.nn.Module") -> None:
    """Raise `FloatingPointError` on every process of a training when one of them holds a weight that is no number."""
    import torch

    parameters = list(model.named_parameters())
    # Under ZeRO-3 a parameter is empty, and `ds_tensor` is this process's part of it.
    held = ((name, getattr(parameter, "ds_tensor", parameter)) for name, parameter in parameters)
    broken = [name for name, tensor in held if not bool(torch.isfinite(tensor).all())]
    if _anywhere(bool(broken)):
        where = f"{len(broken)} of {len(parameters)} tensors, the first is {broken[0]}" if broken else "another process"
        raise FloatingPointError(f"weights are NaN or infinite after the last step ({where}): the training diverged")


def _anywhere(seen: bool) -> bool:
    """Tell whether any process of a training has seen it."""
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return seen
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    flag = torch.tensor(int(seen), device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())
