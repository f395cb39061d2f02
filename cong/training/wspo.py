"""Weak-to-strong preference optimization (Zhu et al., 2025): the strong model learns what alignment did to the weak.

    WSPO(model=strong, data=responses, post=weak_aligned, pre=weak, beta=0.1, learning_rate=1e-5)

With `matching="tokens"`, for the tokens t of every response:

    L = mean_t [beta (log pi_theta(t) - log pi_ref_strong(t)) - (log pi_r_weak(t) - log pi_ref_weak(t))]^2

Tokens can be matched under one tokenizer only; `matching="sequence"` matches the sums over the response instead, each
model reading the text with its own tokenizer. The frozen log-probabilities are stages of their own: every beta and
learning rate shares them, and those of the weak pair are shared by every strong model.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cong.data import RESPONSES, Row, read_rows
from cong.data.finite import check_finite
from cong.errors import UserError
from cong.graph.resources import Resources
from cong.graph.stage import Context
from cong.graph.work import Usage
from cong.models import Model, check_model, check_same_tokenizer, describe, model_dir
from cong.training.finetune import Finetune
from cong.training.job import TrainerFactory
from cong.training.launch import launch
from cong.training.parts import Compute, compute_parts, frozen_pass
from cong.training.reference import PART, FrozenPass, pad_token
from cong.training.rows import TokenRows, completion_rows

if TYPE_CHECKING:
    import numpy as np
    import torch

LOGPROBS = "logprobs"
KEY = ("prompt_id", "sample")
"""Columns that name a response."""
_COLUMNS = (*KEY, "token_ids", "logps", "at_limit")


@dataclass(frozen=True, kw_only=True)
class ResponseLogprobs(FrozenPass):
    """log pi(y_t | x, y_<t) of every token of every response of `data`.

    Writes `logprobs/*.parquet`: prompt_id, sample, token_ids and logps of the response, at_limit (at max_length).
    """

    def usage(self, results: Mapping[str, Any]) -> Usage:
        return Usage.of_tokens(results)

    def run(self, ctx: Context) -> None:
        job = LogprobJob(
            model=model_dir(ctx, self.model),
            responses=ctx.path(self.data) / RESPONSES,
            max_length=self.max_length,
            parts=ctx.out / LOGPROBS,
            progress=ctx.progress_path,
            resources=ctx.resources,
        )
        job.parts.mkdir(exist_ok=True)
        launch(compute_logprobs, job, resources=ctx.resources, scratch=ctx.out / ".ray")
        found = read_logprobs(job.parts).values()
        ctx.summary(rows=len(found), tokens=sum(len(one.token_ids) for one in found))


@dataclass(frozen=True, kw_only=True)
class WSPO(Finetune):
    """Minimizes the squared difference between the strong model's and the weak pair's log-ratios."""

    post: Model
    """pi_r_weak: the weak model after its alignment."""
    pre: Model
    """pi_ref_weak: the weak model before."""
    beta: float
    matching: Literal["tokens", "sequence"] = "tokens"
    strong_logprobs: ResponseLogprobs = field(init=False)
    """Derived, like the next two; fields, so that the graph sees them as inputs."""
    post_logprobs: ResponseLogprobs = field(init=False)
    pre_logprobs: ResponseLogprobs = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise ValueError(f"beta = {self.beta} is not above 0")
        if self.matching not in ("tokens", "sequence"):
            raise ValueError(f"matching = {self.matching!r} is neither 'tokens' nor 'sequence'")
        frozen = {"strong_logprobs": self.model, "post_logprobs": self.post, "pre_logprobs": self.pre}
        for name, model in frozen.items():
            logprobs = ResponseLogprobs(model=model, data=self.data, max_length=self.max_length)
            object.__setattr__(self, name, logprobs)

    def label(self) -> str:
        return f"beta={self.beta:g},lr={self.learning_rate:g}{self.adapted}"

    def check(self) -> None:
        super().check()
        for weak in (self.post, self.pre):
            check_model(weak)
            if self.matching == "tokens":
                _check_tokenizers(self.model, weak)

    def token_rows(self, ctx: Context, tokenizer: Any) -> TokenRows:
        given = read_rows(ctx.path(self.data) / RESPONSES)
        rows = completion_rows(tokenizer, given, max_length=self.max_length, keep=KEY)
        keys = [response_key(*pair) for pair in zip(*(rows.columns.pop(name) for name in KEY), strict=True)]
        frozen = (self.strong_logprobs, self.post_logprobs, self.pre_logprobs)
        tables = [read_logprobs(ctx.path(stage) / LOGPROBS) for stage in frozen]
        if self.matching == "sequence":
            return _with_sums(rows, keys, tables)
        for stage, table in zip(frozen, tables, strict=True):
            if not _same_tokens(rows, keys, table):
                raise ValueError(_refusal(self.model, stage.model))
        strong, post, pre = ([table[key].logps for key in keys] for table in tables)
        rows.columns["reference"] = strong
        rows.columns["weak_ratio"] = [one - other for one, other in zip(post, pre, strict=True)]
        return rows

    def trainer_factory(self) -> TrainerFactory:
        loss = partial(wspo_loss, beta=self.beta)
        return partial(matching_trainer, loss=loss, per_token=self.matching == "tokens", max_length=self.max_length)


def wspo_loss(
    *, policy: "torch.Tensor", reference: "torch.Tensor", weak_ratio: "torch.Tensor", mask: "torch.Tensor", beta: float
) -> "torch.Tensor":
    """Return the loss of each row from log-probabilities (rows x tokens, or rows x 1 for sums over a response)."""
    gap = beta * (policy - reference) - weak_ratio
    return (gap.square() * mask).sum(dim=1) / mask.sum(dim=1)


def matching_trainer(
    *, settings: dict[str, Any], parts: dict[str, Any], loss: Any, per_token: bool, max_length: int
) -> Any:
    """Return the trainer for rows that carry their frozen log-probabilities."""
    from trl.trainer.sft_config import SFTConfig

    from cong.training.trainers import MatchingCollator, MatchingTrainer

    config = SFTConfig(**settings, dataset_kwargs={"skip_prepare_dataset": True}, max_length=max_length)
    collator = MatchingCollator(pad_token_id=pad_token(parts["processing_class"]), per_token=per_token)
    return MatchingTrainer(args=config, data_collator=collator, loss=loss, per_token=per_token, **parts)


def _check_tokenizers(strong: Model, weak: Model) -> None:
    try:
        check_same_tokenizer(strong, weak)
    except UserError as error:
        raise UserError(_refusal(strong, weak)) from error


def _refusal(strong: Model, weak: Model) -> str:
    return (
        f"matching='tokens' compares log-probabilities token by token, and {describe(strong)} and {describe(weak)} "
        "do not cut the responses into the same tokens: use matching='sequence'"
    )


class Scored(NamedTuple):
    """What one model says of one response."""

    token_ids: "np.ndarray"
    logps: "np.ndarray"
    at_limit: bool


Key = tuple[str, int]


def response_key(prompt_id: str, sample: int | None) -> Key:
    """Return what names a response, the values of its columns `KEY`."""
    return prompt_id, sample or 0


def _same_tokens(rows: TokenRows, keys: list[Key], table: dict[Key, Scored]) -> bool:
    labels = zip(keys, rows.columns["labels"], strict=True)
    return all(key in table and table[key].token_ids.tolist() == response_tokens(row).tolist() for key, row in labels)


def response_tokens(labels: "np.ndarray") -> "np.ndarray":
    """Return the tokens that are predicted: the first of a conversation never is."""
    return labels[1:][labels[1:] != -100]


def _with_sums(rows: TokenRows, keys: list[Key], tables: list[dict[Key, Scored]]) -> TokenRows:
    """Add sums over the responses; a response that one of the tokenizers cuts off is another text, and left out."""
    whole = [all(key in table and not table[key].at_limit for table in tables) for key in keys]
    kept = [index for index, good in enumerate(whole) if good]
    sums = [[float(table[keys[index]].logps.sum(dtype="float64")) for table in tables] for index in kept]
    columns = {name: [values[index] for index in kept] for name, values in rows.columns.items()}
    columns["reference"] = [[strong] for strong, _, _ in sums]
    columns["weak_ratio"] = [[post - pre] for _, post, pre in sums]
    return dataclasses.replace(
        rows,
        columns=columns,
        lengths=[rows.lengths[index] for index in kept],
        tokens=[rows.tokens[index] for index in kept],
        counts={**rows.counts, "rows": len(kept), "rows_unmatched": len(keys) - len(kept)},
    )


def read_logprobs(directory: Path) -> dict[Key, Scored]:
    """Return what `ResponseLogprobs` wrote, by prompt and sample."""
    import pyarrow.parquet as pq

    found: dict[Key, Scored] = {}
    for path in sorted(directory.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            columns = file.read().to_pandas().to_dict("list")
        for prompt_id, sample, *scored in zip(*(columns.get(name, ()) for name in _COLUMNS), strict=True):
            if (prompt_id, sample) in found:
                raise ValueError(f"prompt_id {prompt_id!r} comes twice with sample {sample}")
            found[prompt_id, sample] = Scored(*scored)
    return found


@dataclass(frozen=True, kw_only=True)
class LogprobJob:
    """What a process that computes log-probabilities of responses is given."""

    model: Path
    responses: Path
    max_length: int
    parts: Path
    progress: Path
    resources: Resources


def compute_logprobs(job: LogprobJob) -> None:
    """Compute the parts of this process."""
    compute_parts(
        read_rows(job.responses),
        directory=job.parts,
        size=PART,
        load=partial(_scorer, job),
        check=partial(check_sums, column="logps", model=job.model),
        progress=job.progress,
        unit="rows",
        resources=job.resources,
    )


def check_sums(rows: list[Row], *, column: str, model: Path) -> None:
    """Raise when the log-probabilities of a response do not add up to a finite number."""
    sums = [{"prompt_id": row["prompt_id"], "log-probability": float(row[column].sum())} for row in rows]
    check_finite(sums, columns=("log-probability",), source=f"log-probabilities of {model}")


def _scorer(job: LogprobJob, device: str) -> Compute:
    """Return a function from responses to rows of the output; it holds the model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.utils import add_fused_lm_head

    from cong.models.weights import load_checked
    from cong.training.blocks import neighbours
    from cong.training.packing import pack_rows
    from cong.training.settings import weights_dtype

    tokenizer = AutoTokenizer.from_pretrained(job.model)
    model: Any = load_checked(AutoModelForCausalLM, job.model, dtype=weights_dtype(job.resources))
    add_fused_lm_head(model)
    pack_rows(model)
    model.to(device).eval()

    def score(rows: list[Row]) -> list[Row]:
        tokens = completion_rows(tokenizer, rows, max_length=job.max_length, keep=KEY)
        made = [dict(zip(tokens.columns, values, strict=True)) for values in zip(*tokens.columns.values(), strict=True)]
        made.sort(key=lambda row: len(row["input_ids"]))
        found = []
        counts = [len(row["input_ids"]) for row in made]
        for rows_at_once in neighbours(counts, most=job.resources.training.micro_tokens):
            batch = made[rows_at_once.start : rows_at_once.stop]
            logps = response_logps(model, batch, pad=pad_token(tokenizer), resources=job.resources)
            found += [_output(*pair, max_length=job.max_length) for pair in zip(batch, logps, strict=True)]
        return found

    return score


def _output(row: Row, logps: "np.ndarray", *, max_length: int) -> Row:
    scored = Scored(response_tokens(row["labels"]), logps, at_limit=len(row["input_ids"]) >= max_length)
    return dict(zip(_COLUMNS, (*response_key(row["prompt_id"], row["sample"]), *scored), strict=True))


def response_logps(model: Any, rows: list[Row], *, pad: int, resources: Resources) -> "list[np.ndarray]":
    """Return the log-probabilities of each row's response tokens, in the trainer's own layout and precision."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    lists = [{name: row[name].tolist() for name in ("input_ids", "labels")} for row in rows]
    batch = {name: value.to(model.device) for name, value in DataCollatorForLanguageModeling(pad)(lists).items()}
    with frozen_pass(resources):
        output = model(**batch, use_cache=False, fused_lm_head=True)
    scored = batch["labels"][:, 1:] != -100
    return [logps[mask].cpu().numpy() for logps, mask in zip(output.log_probs.float(), scored, strict=True)]
