"""Stages that make the synthetic world's prompts, tokenizer and pretrained models."""

from dataclasses import dataclass
from typing import Any, Literal

from cong.data import PROMPTS, check_prompts, write_rows
from cong.graph.journal import truncate_metrics
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work
from cong.models.architecture import Architecture
from cong.synthetic.domain import Domain
from cong.synthetic.models import Size, architecture, pretrain
from cong.synthetic.tokenizer import Family, build_tokenizer
from cong.synthetic.world import make_prompts

LOG_EVERY = 10


@dataclass(frozen=True, kw_only=True)
class BuildTokenizer(Stage):
    """A byte-pair tokenizer with the chat template of a family, trained on the world's corpus."""

    GIVEN = True
    VERSION = 2
    world: Domain
    family: Family

    def label(self) -> str:
        return self.family

    def work(self, resources: Resources) -> Work:
        return LITTLE

    @property
    def evaluated_model(self) -> Any:
        return self

    def run(self, ctx: Context) -> None:
        build_tokenizer(self.world, family=self.family, directory=ctx.out / "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Pretrain(Stage):
    """A base model of one size, trained on the world's corpus: what a hub's checkpoint is elsewhere."""

    GIVEN = True
    world: Domain
    family: Family
    size: Size
    tokenizer: BuildTokenizer
    steps: int
    batch_documents: int
    learning_rate: float
    seed: int

    def label(self) -> str:
        return f"{self.family}-{self.size},seed={self.seed}"

    @property
    def architecture(self) -> Architecture:
        """The model in numbers."""
        return architecture(self.family, self.size)

    def work(self, resources: Resources) -> Work:
        return LITTLE

    @property
    def evaluated_model(self) -> Any:
        return self

    def run(self, ctx: Context) -> None:
        seen: list[int] = []

        def log(step: int, loss: float) -> None:
            if not seen:
                # After a kill the steps since the last saved state come again.
                truncate_metrics(ctx.metrics_path, last_step=step)
                seen.append(step)
            if (step + 1) % LOG_EVERY == 0:
                ctx.log(step + 1, loss=loss)
                ctx.progress(done=step + 1, total=self.steps, unit="steps")

        results = pretrain(
            world=self.world,
            family=self.family,
            size=self.size,
            tokenizer_dir=ctx.path(self.tokenizer) / "tokenizer",
            output_dir=ctx.out / "model",
            steps=self.steps,
            batch_documents=self.batch_documents,
            learning_rate=self.learning_rate,
            seed=self.seed,
            log=log,
            checkpoint_dir=ctx.scratch,
        )
        ctx.summary(**results)


@dataclass(frozen=True, kw_only=True)
class SyntheticPrompts(Stage):
    """Prompts of the synthetic world; `train` and `heldout` never share one."""

    world: Domain
    split: Literal["train", "heldout"]
    count: int
    seed: int = 0

    def label(self) -> str:
        return f"{self.split},n={self.count}"

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return self.count

    def run(self, ctx: Context) -> None:
        rows = make_prompts(self.world, split=self.split, count=self.count, seed=self.seed)
        check_prompts(rows, source=self.title)
        write_rows(ctx.out / PROMPTS, rows)
        ctx.summary(prompts=len(rows))
