"""Hidden states of a frozen model at given responses: what probes are trained on.

    HiddenStates(model=strong, data=answers, of="prompt")       # before the first word of the answer
    HiddenStates(model=weak_aligned, data=labels)               # after the last one

Writes `states/*.parquet`, a row per response that the model can read: row_id, and state (the layer's width, float32).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cong.data import RESPONSES, Row, read_rows
from cong.errors import UserError
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context
from cong.graph.work import Usage, Work
from cong.models import architecture_of, describe, memory, model_dir
from cong.training.blocks import neighbours
from cong.training.launch import launch
from cong.training.parts import Compute, compute_parts, frozen_pass
from cong.training.reference import FrozenPass, pad_token
from cong.training.rows import completion_rows

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

Token = Literal["last", "mean"]
STATES = "states"
PART = 1024
"""Responses of a part: a run that was killed continues at the parts that are missing."""
MOST_TOKENS = 4096
"""Most padded tokens of one pass; a longer row stands alone."""
STATE_BYTES = 4
"""Of one number of a state."""


@dataclass(frozen=True, kw_only=True)
class HiddenStates(FrozenPass):
    """The hidden state of `layer` at the last token of the prompt or of the response, or its mean over the tokens.

    Layers are numbered as in transformers: 0 is the embeddings, -1 the last one, behind the final norm. The prompt ends
    where the assistant begins, and its state knows nothing of the response; the response ends with its end of turn.
    """

    of: Literal["prompt", "response"] = "response"
    token: Token = "last"
    layer: int = -1

    def __post_init__(self) -> None:
        for name, known in (("of", ("prompt", "response")), ("token", ("last", "mean"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not one of {', '.join(known)}")

    def label(self) -> str:
        return f"{self.of},{self.token},layer={self.layer}"

    def check(self) -> None:
        super().check()
        known = architecture_of(self.model)
        if known is not None and not -known.layers - 1 <= self.layer <= known.layers:
            raise UserError(f"layer = {self.layer}: {describe(self.model)} has the layers 0 to {known.layers}")

    def work(self, resources: Resources) -> Work:
        known = architecture_of(self.model)
        width = known.width if known else 0
        return super().work(resources) + Work(disk_bytes=self.row_count() * width * STATE_BYTES, stages=0)

    def usage(self, results: Mapping[str, Any]) -> Usage:
        return Usage.of_tokens(results)

    def memory(self, resources: Resources) -> Need | None:
        execution, known = self.execution(resources), architecture_of(self.model)
        if known is None:
            return None
        itemsize = 4 if execution.training.deepspeed == "none" else execution.hardware.itemsize
        tokens = max(MOST_TOKENS, self.max_length)
        need = memory.fused_scoring(known, tokens=tokens, itemsize=itemsize)
        kept = 0 if self.layer == -1 else tokens * known.layers * known.width * itemsize
        return dataclasses.replace(need, working=need.working + kept)

    def run(self, ctx: Context) -> None:
        job = StateJob(
            model=model_dir(ctx, self.model),
            responses=ctx.path(self.data) / RESPONSES,
            max_length=self.max_length,
            of=self.of,
            token=self.token,
            layer=self.layer,
            parts=ctx.out / STATES,
            progress=ctx.progress_path,
            resources=ctx.resources,
        )
        job.parts.mkdir(exist_ok=True)
        launch(compute_states, job, resources=ctx.resources, scratch=ctx.out / ".ray")
        counts = [int(count) for table in _tables(job.parts, columns=["tokens"]) for count in table["tokens"]]
        ctx.summary(rows=len(counts), tokens=sum(counts))


@dataclass(frozen=True, kw_only=True)
class StateJob:
    """What a process that reads hidden states is given."""

    model: Path
    responses: Path
    max_length: int
    of: Literal["prompt", "response"]
    token: Token
    layer: int
    parts: Path
    progress: Path
    resources: Resources


def read_states(directory: Path) -> "dict[str, np.ndarray]":
    """Return what `HiddenStates` wrote, by row_id."""
    tables = _tables(directory, columns=["row_id", "state"])
    return {row_id: state for table in tables for row_id, state in zip(table["row_id"], table["state"], strict=True)}


def _tables(directory: Path, *, columns: list[str]) -> "Iterator[pd.DataFrame]":
    """Yield the parts; one none of whose rows can be read has no columns."""
    import pyarrow.parquet as pq

    for path in sorted(directory.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows:
                yield file.read(columns=columns).to_pandas()


def compute_states(job: StateJob) -> None:
    """Compute the parts of this process."""
    rows = read_rows(job.responses)
    compute_parts(
        rows,
        directory=job.parts,
        size=PART,
        load=partial(_reader, job),
        check=partial(_check_finite, source=str(job.model)),
        progress=job.progress,
        unit="rows",
        resources=job.resources,
    )


def _check_finite(rows: list[Row], *, source: str) -> None:
    import numpy as np

    for row in rows:
        if not np.isfinite(row["state"]).all():
            raise FloatingPointError(f"{source}: the hidden state at row_id {row['row_id']!r} is NaN or infinite")


def _reader(job: StateJob, device: str) -> Compute:
    """Return a function from responses to rows of the output; it holds the model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cong.models.weights import load_checked
    from cong.training.settings import weights_dtype

    tokenizer, dtype = AutoTokenizer.from_pretrained(job.model), weights_dtype(job.resources)
    model: Any = load_checked(AutoModelForCausalLM, job.model, dtype=dtype).to(device).eval()

    def read(rows: list[Row]) -> list[Row]:
        tokens = completion_rows(tokenizer, rows, max_length=job.max_length, keep=("row_id",)).columns
        spans = [_span(labels, job.of) for labels in tokens["labels"]]
        made = [
            {"row_id": row_id, "ids": ids[:end], "start": start}
            for row_id, ids, (start, end) in zip(tokens["row_id"], tokens["input_ids"], spans, strict=True)
        ]
        made.sort(key=lambda row: len(row["ids"]))
        batches = neighbours([len(row["ids"]) for row in made], most=MOST_TOKENS, padded=True)
        parts = (made[rows.start : rows.stop] for rows in batches)
        return [row for part in parts for row in _states(job, model, part, pad=pad_token(tokenizer))]

    return read


def _span(labels: "np.ndarray", of: str) -> tuple[int, int]:
    """Return where the tokens begin and end whose states are read."""
    start = int((labels != -100).argmax())
    return (0, start) if of == "prompt" else (start, len(labels))


def _states(job: StateJob, model: Any, rows: list[Row], *, pad: int) -> Iterator[Row]:
    import torch

    longest = max(len(row["ids"]) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long, device=model.device)
    for place, row in enumerate(rows):
        ids[place, : len(row["ids"])] = torch.as_tensor(row["ids"].astype("int64"))
    lengths = torch.tensor([len(row["ids"]) for row in rows], device=model.device)
    attended = (torch.arange(longest, device=model.device) < lengths[:, None]).long()
    with frozen_pass(job.resources):
        states = _layer(model, ids, attended, layer=job.layer)
    for row, state in zip(rows, states, strict=True):
        span = state[row["start"] : len(row["ids"])].float()
        chosen = span[-1] if job.token == "last" else span.mean(dim=0)
        yield {"row_id": row["row_id"], "state": chosen.cpu().numpy(), "tokens": len(row["ids"])}


def _layer(model: Any, ids: "torch.Tensor", attended: "torch.Tensor", *, layer: int) -> "torch.Tensor":
    """Return the hidden states (B x T x D) of a layer; the head is left out."""
    every = layer != -1
    # Not `base_model`: an adapter's is the whole model.
    output = model.get_decoder()(input_ids=ids, attention_mask=attended, use_cache=False, output_hidden_states=every)
    return output.hidden_states[layer] if every else output.last_hidden_state
