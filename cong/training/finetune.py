"""Base of the stages that train a model with one of TRL's trainers.

A subclass says how its rows are tokenized and which trainer computes its loss; order, execution, checkpoints and curves
are shared. Its fields are hyper-parameters only: workers, DeepSpeed and micro-batch are resources.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cong.errors import NothingLeft
from cong.graph.demand import Demand
from cong.graph.fingerprint import LATER
from cong.graph.libraries import import_libraries
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Usage, Work
from cong.models import Model, architecture_of, check_model, describe, largest, memory, model_dir
from cong.models.architecture import Architecture, read_architecture
from cong.models.work import ROW_TOKENS, TRAINING, arithmetic_seconds, weight_bytes
from cong.training.endings import check_ending, check_ending_at_hand
from cong.training.fitting import fitted
from cong.training.job import Job, Schedule, TrainerFactory
from cong.training.launch import launch
from cong.training.lora import LoRA
from cong.training.reference import FrozenPass
from cong.training.rows import TokenRows

SCHEDULERS = (
    "cosine", "linear", "polynomial", "cosine_with_restarts", "inverse_sqrt", "constant", "constant_with_warmup",
)  # fmt: skip
"""Those of transformers that need no further settings and no evaluation."""


@dataclass(frozen=True, kw_only=True)
class Finetune(Stage):
    """Trains `model` on the rows of `data`; gradients are clipped at norm 1, the optimizer is AdamW, dropout is off.

    A loss, a gradient or a weight that is no number ends the training: no model is published.
    """

    SEQUENCES: ClassVar[int] = 1
    """Sequences per row: a pair has two."""
    WHOLE_LOGITS: ClassVar[bool] = False
    """Whether the loss needs the logits of all response tokens at once."""

    model: Model
    data: Stage
    learning_rate: float
    epochs: int = 1
    global_batch_size: int = 64
    scheduler: str = "cosine"
    """One of `SCHEDULERS`; "constant" with a warm-up is "constant_with_warmup", under whose name it is stored."""
    warmup_ratio: float = 0.1
    """Share of the optimizer steps in which the learning rate rises from 0, rounded up, but never all of them."""
    max_length: int = 2048
    """Prompt and response together are cut after so many tokens."""
    weight_decay: float = 0.0
    seed: int = 0
    lora: LoRA | None = field(default=None, metadata=LATER)
    """What is trained in place of all weights; the output is then an adapter on `model`."""

    def __post_init__(self) -> None:
        at_least = {"epochs": 1, "global_batch_size": 1, "max_length": 2, "weight_decay": 0.0}
        for name, lowest in at_least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} = {getattr(self, name)} is below {lowest}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate} is not above 0")
        if not 0 <= self.warmup_ratio < 1:
            raise ValueError(f"warmup_ratio = {self.warmup_ratio} is not in [0, 1)")
        if self.scheduler not in SCHEDULERS:
            raise ValueError(f"scheduler = {self.scheduler!r} is not one of {', '.join(SCHEDULERS)}")
        if self.scheduler == "constant" and self.warmup_ratio > 0:
            # The optimizer's own "constant" would leave the warm-up out, unlike all other schedulers.
            object.__setattr__(self, "scheduler", "constant_with_warmup")

    @property
    def base(self) -> Model:
        """Return the model on which an adapter is trained."""
        return self.model

    @property
    def companions(self) -> tuple[Stage, ...]:
        if self.lora is None or not isinstance(self.model, Stage):
            return ()
        return (self.model, *self.model.companions)

    @property
    def adapted(self) -> str:
        """Return what a label says of the adapter, nothing where all weights are trained."""
        return "" if self.lora is None else f",{self.lora}"

    def token_rows(self, ctx: Context, tokenizer: Any) -> TokenRows:
        """Tokenize the rows of the inputs."""
        raise NotImplementedError

    def trainer_factory(self) -> TrainerFactory:
        """Return what makes the trainer whose loss this stage minimizes."""
        raise NotImplementedError

    def check(self) -> None:
        check_model(self.model)
        check_ending_at_hand(self.model)

    def demand(self, resources: Resources) -> Demand:
        execution = self.execution(resources)
        self._check_workers(execution)
        return execution.training_demand()

    def _check_workers(self, execution: Resources) -> None:
        if self.global_batch_size < execution.training.workers:
            raise ValueError(
                f"global_batch_size = {self.global_batch_size} is fewer rows than there are workers, "
                f"{execution.training.workers}"
            )

    def parameters(self) -> int | None:
        return largest(self.model)

    def memory(self, resources: Resources) -> Need | None:
        execution, model = self.execution(resources), architecture_of(self.model)
        longest, on_gpu = self.SEQUENCES * self.max_length, execution.hardware.device == "cuda"
        return model and self._need(model, execution, longest=longest, checkpointing=on_gpu)

    def _need(self, model: Architecture, execution: Resources, *, longest: int, checkpointing: bool) -> Need:
        return memory.training(
            model,
            tokens=max(longest, execution.training.micro_tokens),
            workers=execution.training.workers,
            zero=execution.training.deepspeed,
            itemsize=execution.hardware.itemsize,
            checkpointing=checkpointing,
            fused=execution.hardware.device == "cuda",
            whole_logits=self.WHOLE_LOGITS,
            trained=self.lora.parameters(model) if self.lora else None,
        )

    def work(self, resources: Resources) -> Work:
        operations = TRAINING * self.epochs * self.SEQUENCES * ROW_TOKENS * self.data.row_count()
        seconds = arithmetic_seconds(self.model, operations=operations, resources=resources)
        return Work(gpu_seconds=seconds, disk_bytes=weight_bytes(self.model))

    def usage(self, results: Mapping[str, Any]) -> Usage:
        return Usage.of_tokens(results)

    def row_count(self) -> int:
        return self.data.row_count()

    @property
    def evaluated_model(self) -> Any:
        return self

    @property
    def trainings(self) -> tuple[Stage, ...]:
        passes = (stage for stage in self.inputs if isinstance(stage, FrozenPass))
        before = self.model.trainings if isinstance(self.model, Stage) else ()
        return (self, *passes, *before)

    def run(self, ctx: Context) -> None:
        self._check_workers(ctx.resources)
        job = self._job(ctx)
        # A kill after the model was complete, but before the stage was published, repeats nothing.
        if not job.result.exists():
            self._train(ctx, job)
        ctx.summary(**json.loads(job.result.read_text()))
        shutil.rmtree(job.checkpoints, ignore_errors=True)
        job.tokens.unlink(missing_ok=True)

    def _job(self, ctx: Context) -> Job:
        return Job(
            schedule=Schedule(**{item.name: getattr(self, item.name) for item in dataclasses.fields(Schedule)}),
            trainer_factory=self.trainer_factory(),
            model=model_dir(ctx, self.model),
            out=ctx.out,
            metrics=ctx.metrics_path,
            progress=ctx.progress_path,
            resources=ctx.resources,
            lora=self.lora,
            base=describe(self.model),
        )

    def _train(self, ctx: Context, job: Job) -> None:
        import_libraries("cong.decoding")
        from transformers import AutoTokenizer

        from cong.training.loop import train

        tokenizer = AutoTokenizer.from_pretrained(job.model)
        check_ending(job.model, tokenizer)
        rows = self.token_rows(ctx, tokenizer)
        if not rows.lengths:
            raise NothingLeft(f"no row of {self.data.title} can be trained on: {rows.counts}")
        rows.save(job.tokens)
        job = dataclasses.replace(self._fitted(job, longest=max(rows.tokens)), counts=rows.counts)
        launch(train, job, resources=job.resources, scratch=ctx.out / ".ray")

    def _fitted(self, job: Job, *, longest: int) -> Job:
        """Return the job with the micro-batches, and where need be the checkpointing, by which it fits into memory."""
        model = read_architecture(job.model / "config.json")
        if model is None:
            return job

        def need(execution: Resources, checkpointing: bool) -> float:
            return self._need(model, execution, longest=longest, checkpointing=checkpointing).total

        return fitted(job, longest=longest, need=need)
