"""Log-probabilities of preference pairs under the reference policy, computed once for every beta and learning rate.

Writes `reference.parquet`: prompt_id, ref_chosen_logp, ref_rejected_logp (sums over response tokens, in nats).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cong.data import PAIRS, Row, read_rows, write_rows
from cong.data.finite import check_finite
from cong.graph.demand import Demand
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Work
from cong.models import Model, architecture_of, check_model, largest, memory, model_dir
from cong.models.work import FORWARD, ROW_TOKENS, arithmetic_seconds
from cong.training.launch import launch
from cong.training.parts import Compute, compute_parts, frozen_pass
from cong.training.rows import preference_rows

if TYPE_CHECKING:
    import torch

REFERENCE = "reference.parquet"
PART = 1024
"""Rows of a part: a run that was killed continues at the parts that are missing."""


@dataclass(frozen=True, kw_only=True)
class FrozenPass(Stage):
    """Base of the passes of a frozen model over the rows of `data`, on the workers that train elsewhere."""

    SEQUENCES: ClassVar[int] = 1
    """Sequences per row: a pair has two."""

    model: Model
    data: Stage
    max_length: int = 2048

    def check(self) -> None:
        check_model(self.model)

    def demand(self, resources: Resources) -> Demand:
        return self.execution(resources).training_demand()

    def parameters(self) -> int | None:
        return largest(self.model)

    def work(self, resources: Resources) -> Work:
        operations = FORWARD * self.SEQUENCES * ROW_TOKENS * self.data.row_count()
        return Work(gpu_seconds=arithmetic_seconds(self.model, operations=operations, resources=resources))

    def row_count(self) -> int:
        return self.data.row_count()

    def memory(self, resources: Resources) -> Need | None:
        execution, model = self.execution(resources), architecture_of(self.model)
        if model is None:
            return None
        tokens = max(execution.training.micro_tokens, self.SEQUENCES * self.max_length)
        itemsize = 4 if execution.training.deepspeed == "none" else execution.hardware.itemsize
        return memory.fused_scoring(model, tokens=tokens, itemsize=itemsize)


@dataclass(frozen=True, kw_only=True)
class ReferenceLogprobs(FrozenPass):
    """log pi_ref(y | x) of both sides of every pair."""

    SEQUENCES = 2

    def run(self, ctx: Context) -> None:
        job = ReferenceJob(
            model=model_dir(ctx, self.model),
            pairs=ctx.path(self.data) / PAIRS,
            max_length=self.max_length,
            parts=ctx.scratch / "parts",
            progress=ctx.progress_path,
            resources=ctx.resources,
        )
        job.parts.mkdir(exist_ok=True)
        launch(compute_reference, job, resources=ctx.resources, scratch=ctx.out / ".ray")
        rows = [row for path in sorted(job.parts.glob("*.parquet")) for row in read_rows(path)]
        write_rows(ctx.out / REFERENCE, rows)
        ctx.summary(rows=len(rows))


@dataclass(frozen=True, kw_only=True)
class ReferenceJob:
    """What a process that computes reference log-probabilities is given."""

    model: Path
    pairs: Path
    max_length: int
    parts: Path
    progress: Path
    resources: Resources


def compute_reference(job: ReferenceJob) -> None:
    """Compute the parts of this process."""
    compute_parts(
        read_rows(job.pairs),
        directory=job.parts,
        size=PART,
        load=partial(_scorer, job),
        check=partial(check_finite, columns=("ref_chosen_logp", "ref_rejected_logp"), source=str(job.model)),
        progress=job.progress,
        unit="pairs",
        resources=job.resources,
    )


def pad_token(tokenizer: Any) -> int:
    """Return the token that batches are padded with."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def _scorer(job: ReferenceJob, device: str) -> Compute:
    """Return a function from rows of pairs to rows of the output; it holds the model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.utils import add_fused_lm_head

    from cong.models.weights import load_checked
    from cong.training.packing import pack_rows
    from cong.training.settings import weights_dtype

    tokenizer = AutoTokenizer.from_pretrained(job.model)
    model: Any = load_checked(AutoModelForCausalLM, job.model, dtype=weights_dtype(job.resources))
    add_fused_lm_head(model)
    pack_rows(model)
    model.to(device).eval()

    def score(rows: list[Row]) -> list[Row]:
        tokens = preference_rows(tokenizer, rows, max_length=job.max_length).columns
        found = {}
        for batch in _batches(tokens, most=job.resources.training.micro_tokens):
            chosen, rejected = pair_logprobs(model, batch, tokenizer=tokenizer, resources=job.resources)
            for pair, one, other in zip(batch, chosen.tolist(), rejected.tolist(), strict=True):
                found[pair["prompt_id"]] = {"ref_chosen_logp": one, "ref_rejected_logp": other}
        return [{"prompt_id": prompt_id, **found[prompt_id]} for prompt_id in tokens["prompt_id"]]

    return score


def _batches(tokens: dict[str, list[Any]], *, most: int) -> Iterator[list[Row]]:
    from cong.training.blocks import neighbours

    pairs = [dict(zip(tokens, values, strict=True)) for values in zip(*tokens.values(), strict=True)]
    pairs.sort(key=lambda pair: len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"])))
    counts = [2 * len(pair["prompt_ids"]) + len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs]
    yield from (pairs[rows.start : rows.stop] for rows in neighbours(counts, most=most))


def pair_logprobs(
    model: Any, pairs: list[Row], *, tokenizer: Any, resources: Resources
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the summed response log-probabilities of the chosen and of the rejected side, one number per pair each.

    The trainer's own collator and precision, so that training begins at a margin of zero.
    """
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    lists = [{name: ids.tolist() for name, ids in pair.items() if name != "prompt_id"} for pair in pairs]
    collator = DataCollatorForPreference(pad_token_id=pad_token(tokenizer))
    batch = {name: tensor.to(model.device) for name, tensor in collator(lists).items()}
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    with frozen_pass(resources):
        output = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
        )
    chosen, rejected = output.log_probs.float().sum(dim=1).chunk(2)
    return chosen, rejected
