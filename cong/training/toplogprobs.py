"""What a frozen teacher would say at every token of given responses: its likeliest tokens and their log-probabilities.

    TopLogprobs(model=strong, data=responses, k=32)                                     # one model
    TopLogprobs(model=strong, post=weak_aligned, pre=weak, weight=1.0, data=responses)  # softmax(z + w (z_r - z_ref))

Writes `tops/*.parquet`, a row per response: prompt_id, sample, token_ids (the T tokens of response and end), top_ids
(T x K, the likeliest first, token by token), top_logps (T x K, in nats) and tail_logps (T: the log of what all other
tokens have together, -inf where there are none). With K = 32 a response token takes 264 bytes before compression.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cong.data import RESPONSES, Row, read_rows
from cong.errors import UserError
from cong.generation.proxy import check_tuned, check_weight
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context
from cong.graph.work import Usage, Work
from cong.models import Model, architectures_of, check_model, largest, memory, model_dir
from cong.models.work import FORWARD, RESPONSE_TOKENS, ROW_TOKENS, arithmetic_seconds
from cong.training.blocks import neighbours
from cong.training.launch import launch
from cong.training.parts import Compute, compute_parts, frozen_pass
from cong.training.reference import FrozenPass, pad_token
from cong.training.rows import TokenRows, completion_rows
from cong.training.wspo import KEY, Key, check_sums, response_key, response_tokens

if TYPE_CHECKING:
    import numpy as np
    import torch

TOPS = "tops"
PART = 256
"""Responses of a part: a run that was killed continues at the parts that are missing."""
MOST_TOKENS = 1024
"""Most padded tokens whose whole distributions, of all models, are alive at once. A longer row takes several passes."""
ENTRY_BYTES = 8
"""A token's id and its log-probability."""
_COLUMNS = (*KEY, "token_ids", "top_ids", "top_logps", "tail_logps")


@dataclass(frozen=True, kw_only=True)
class TopLogprobs(FrozenPass):
    """The `k` likeliest tokens of softmax(z + w (z_r - z_ref)) at every response token; without a pair, of softmax(z).

    `model` gives z and formats the texts; `post` is pi_r and `pre` pi_ref. All of one tokenizer; their vocabularies are
    cut to the smallest.
    """

    post: Model | None = None
    pre: Model | None = None
    weight: float = 1.0
    """w; nothing without a pair."""
    k: int = 32

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if self.k < 1:
            raise ValueError(f"k = {self.k} is below 1")
        if (self.post is None) != (self.pre is None):
            raise ValueError("a pair is both `post` and `pre`")

    @property
    def models(self) -> tuple[Model, ...]:
        """The model, and the pair behind it where there is one."""
        return tuple(model for model in (self.model, self.post, self.pre) if model is not None)

    def label(self) -> str:
        return f"k={self.k}" + (f",weight={self.weight:g}" if self.pre is not None else "")

    def check(self) -> None:
        if self.post is None or self.pre is None:
            check_model(self.model)
        else:
            check_tuned(self.model, post=self.post, pre=self.pre, adapter=False)

    def parameters(self) -> int | None:
        return largest(*self.models)

    def work(self, resources: Resources) -> Work:
        rows = self.data.row_count()
        given: dict[str, Any] = {"operations": FORWARD * ROW_TOKENS * rows, "resources": resources}
        seconds = sum(arithmetic_seconds(model, **given) for model in self.models)
        return Work(gpu_seconds=seconds, disk_bytes=rows * RESPONSE_TOKENS * self.k * ENTRY_BYTES)

    def usage(self, results: Mapping[str, Any]) -> Usage:
        return Usage.of_tokens(results)

    def memory(self, resources: Resources) -> Need | None:
        execution, known = self.execution(resources), architectures_of(self.models)
        if known is None:
            return None
        itemsize = 4 if execution.training.deepspeed == "none" else execution.hardware.itemsize
        longest = max(MOST_TOKENS, self.max_length)
        return memory.distribution_scoring(known, tokens=longest, scored=MOST_TOKENS, itemsize=itemsize)

    def run(self, ctx: Context) -> None:
        job = TopJob(
            models=tuple(model_dir(ctx, model) for model in self.models),
            weight=self.weight,
            k=self.k,
            responses=ctx.path(self.data) / RESPONSES,
            max_length=self.max_length,
            parts=ctx.out / TOPS,
            progress=ctx.progress_path,
            resources=ctx.resources,
        )
        _check_vocabularies(job.models)
        job.parts.mkdir(exist_ok=True)
        launch(compute_tops, job, resources=ctx.resources, scratch=ctx.out / ".ray")
        lengths = _lengths(job.parts)
        # As of several passes: every model reads every response.
        ctx.summary(rows=len(lengths), tokens=len(self.models) * sum(lengths))


@dataclass(frozen=True, kw_only=True)
class TopJob:
    """What a process that looks for a teacher's likeliest tokens is given."""

    models: tuple[Path, ...]
    weight: float
    k: int
    responses: Path
    max_length: int
    parts: Path
    progress: Path
    resources: Resources


class Tops(NamedTuple):
    """What a teacher says of one response."""

    token_ids: "np.ndarray"
    top_ids: "np.ndarray"
    top_logps: "np.ndarray"
    tail_logps: "np.ndarray"


def _lengths(directory: Path) -> list[int]:
    """Return how many tokens each response has, without reading the teacher's, which are 2 K times as many."""
    import pyarrow.parquet as pq

    columns = (pq.read_table(path, columns=["token_ids"])["token_ids"] for path in sorted(directory.glob("*.parquet")))
    return [len(tokens) for column in columns for tokens in column]


def read_tops(directory: Path) -> dict[Key, Tops]:
    """Return what `TopLogprobs` wrote, by prompt and sample."""
    import pyarrow.parquet as pq

    found: dict[Key, Tops] = {}
    for path in sorted(directory.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            columns = file.read(columns=list(_COLUMNS)).to_pandas().to_dict("list")
        for prompt_id, sample, *tops in zip(*(columns[name] for name in _COLUMNS), strict=True):
            if (prompt_id, sample) in found:
                raise ValueError(f"prompt_id {prompt_id!r} comes twice with sample {sample}")
            found[prompt_id, sample] = Tops(*tops)
    return found


def with_tops(rows: TokenRows, tops: dict[Key, Tops], *, teacher: str) -> TokenRows:
    """Give tokenized rows, which have the columns `KEY`, what a teacher says of them in place of these columns."""
    keys = [response_key(*pair) for pair in zip(*(rows.columns.pop(name) for name in KEY), strict=True)]
    for key, labels in zip(keys, rows.columns["labels"], strict=True):
        if key not in tops or tops[key].token_ids.tolist() != response_tokens(labels).tolist():
            raise ValueError(f"{teacher} does not cut the response to {key[0]} into the tokens that are trained on")
    for name in ("top_ids", "top_logps", "tail_logps"):
        rows.columns[name] = [getattr(tops[key], name) for key in keys]
    return rows


def top_logprobs(
    logits: "list[torch.Tensor]", *, weight: float, k: int
) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Return ids and log-probabilities (N x K) of the likeliest tokens, and the log of what is left (N).

    `logits` (N x V) are those of one model, or of an anchor, pi_r and pi_ref.
    """
    from cong.decoding.score import proxy_scores

    shared = min(one.shape[-1] for one in logits)
    cut = [one[..., :shared].float() for one in logits]
    scores = cut[0] if len(cut) == 1 else proxy_scores(*cut, weight=weight)
    ids = scores.topk(min(k, shared), dim=-1).indices
    return ids, *parted_logprobs(scores, ids)


def parted_logprobs(logits: "torch.Tensor", ids: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the log-probabilities (N x K) of some tokens, and the log of what all others have together (N).

    One tensor more of the logits' size, and not the two that log-probabilities of all tokens would take.
    """
    total = logits.logsumexp(dim=-1)
    rest = logits.scatter(-1, ids, -float("inf")).logsumexp(dim=-1) - total
    return logits.gather(-1, ids) - total.unsqueeze(-1), rest


def compute_tops(job: TopJob) -> None:
    """Compute the parts of this process."""
    compute_parts(
        read_rows(job.responses),
        directory=job.parts,
        size=PART,
        load=partial(_looker, job),
        check=partial(check_sums, column="top_logps", model=job.models[0]),
        progress=job.progress,
        unit="rows",
        resources=job.resources,
    )


def _looker(job: TopJob, device: str) -> Compute:
    """Return a function from responses to rows of the output; it holds the models."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cong.models.weights import load_checked
    from cong.training.settings import weights_dtype

    tokenizer, dtype = AutoTokenizer.from_pretrained(job.models[0]), weights_dtype(job.resources)
    loaded = [load_checked(AutoModelForCausalLM, path, dtype=dtype).to(device).eval() for path in job.models]

    def look(rows: list[Row]) -> list[Row]:
        tokens = completion_rows(tokenizer, rows, max_length=job.max_length, keep=KEY)
        made = [dict(zip(tokens.columns, values, strict=True)) for values in zip(*tokens.columns.values(), strict=True)]
        made.sort(key=lambda row: len(row["input_ids"]))
        batches = neighbours([len(row["input_ids"]) for row in made], most=MOST_TOKENS, padded=True)
        parts = (made[rows.start : rows.stop] for rows in batches)
        return [found for part in parts for found in _rows(job, loaded, part, tokenizer=tokenizer)]

    return look


def _rows(job: TopJob, models: list[Any], rows: list[Row], *, tokenizer: Any) -> Iterator[Row]:
    """Yield the output of a batch, in the trainer's own layout and precision."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    lists = [{name: row[name].tolist() for name in ("input_ids", "labels")} for row in rows]
    collated = DataCollatorForLanguageModeling(pad_token(tokenizer))(lists)
    batch = {name: value.to(models[0].device) for name, value in collated.items()}
    with frozen_pass(job.resources):
        passes = [top_logprobs(logits, weight=job.weight, k=job.k) for logits in _logits(models, batch)]
    found = [torch.cat(parts) for parts in zip(*passes, strict=True)]
    counts = [len(response_tokens(row["labels"])) for row in rows]
    parts = zip(*(values.cpu().split(counts) for values in found), strict=True)
    for row, (ids, logps, tail) in zip(rows, parts, strict=True):
        tops = Tops(response_tokens(row["labels"]), ids.int().flatten().numpy(), logps.flatten().numpy(), tail.numpy())
        yield dict(zip(_COLUMNS, (*response_key(row["prompt_id"], row["sample"]), *tops), strict=True))


def _logits(models: list[Any], batch: "dict[str, torch.Tensor]") -> "Iterator[list[torch.Tensor]]":
    """Yield the logits (N x V) of every model at response tokens, in their order, `MOST_TOKENS` of them at a time.

    Of a long row the whole is read once more for every further part: its logits take more than its layers do.
    """
    labels = batch["labels"][:, 1:]
    for columns in (labels != -100).any(dim=0).nonzero().flatten().split(max(1, MOST_TOKENS // len(labels))):
        scored = labels[:, columns] != -100
        given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "logits_to_keep": columns}
        yield [model(**given, use_cache=False).logits[scored].float() for model in models]


def _check_vocabularies(models: tuple[Path, ...]) -> None:
    """Raise `UserError` when the token ids of a pair mean others than those of the model that it tunes."""
    from transformers import AutoTokenizer

    from cong.generation.loading import check_anchor

    first = AutoTokenizer.from_pretrained(models[0])
    try:
        for other in models[1:]:
            check_anchor(models[0], other, tokenizers=(first, AutoTokenizer.from_pretrained(other)))
    except ValueError as error:
        raise UserError(f"{models[0]} cannot be tuned by {models[-1]}: {error}") from error
