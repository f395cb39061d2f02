"""`ProxyGenerate`: responses of a strong model that a weak pair tunes while it decodes.

Columns as those of other responses (`cong.generation.stages`): logprob_post (log pi_r of the response under the weak
pair), logprob_pre (log pi_ref) and implicit_reward (their difference) are those of the weak pair, so that the implicit
reward means what it means elsewhere; logprob_anchor is that of the strong model. There is no alpha.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cong.data import PROMPTS, read_rows
from cong.errors import UserError
from cong.generation.backends import check_backend
from cong.generation.decode import DecodeJob, decode_stage
from cong.generation.needs import decoding_need, fitting_slots, is_adapter, without_adapter
from cong.generation.stages import Sampling, request_rows, settings
from cong.graph.demand import Demand
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Usage, Work
from cong.models import (
    Model,
    check_chat,
    check_model,
    check_pair,
    check_same_tokenizer,
    describe,
    largest,
    model_dir,
    pair_dirs,
)
from cong.models.work import decoding_seconds, response_bytes


@dataclass(frozen=True, kw_only=True)
class ProxyGenerate(Stage):
    """One response to every prompt from softmax(z + w (z_r - z_ref)), z the logits of the anchor.

    Proxy tuning (Liu et al., 2024, arXiv:2401.08565, ★ alisawuffles/proxy-tuning) and emulated fine-tuning (Mitchell et
    al., 2023, arXiv:2310.12962): `anchor` is the strong model, `post` pi_r and `pre` pi_ref of the weak pair, `weight`
    w, usually 1. At 0 it is plain decoding of the anchor; with the anchor pi_ref and w = 1, that of pi_r.

    All three need one vocabulary, which is cut to the smallest where they are padded to different sizes. The anchor's
    chat template formats the prompts, and its end tokens end a response. Not inside vLLM.
    """

    anchor: Model
    post: Model
    pre: Model
    prompts: Stage
    weight: float = 1.0
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    max_error_share: float = 0.01

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens = {self.max_new_tokens} must be at least 1")

    @property
    def models(self) -> tuple[Model, Model, Model]:
        """The three models, the pair behind the anchor."""
        return (self.anchor, self.post, self.pre)

    def label(self) -> str:
        return f"weight={self.weight:g},{self.sampling}"

    def check(self) -> None:
        check_tuned(self.anchor, post=self.post, pre=self.pre)
        check_chat(self.anchor)

    def execution(self, resources: Resources) -> Resources:
        """Return resources with the slots of the profile, or as many of them as fit beside three models."""
        given = super().execution(resources)
        fitting = fitting_slots(self.models, new_tokens=self.max_new_tokens, resources=given)
        if fitting is None or given.decoding.slots == "auto":
            return given
        return given.changed(slots=min(given.decoding.slots, fitting))

    def check_execution(self, resources: Resources) -> None:
        check_backend(self.execution(resources), adapter=is_adapter(self.post), anchor=True)

    def demand(self, resources: Resources) -> Demand:
        return self.execution(resources).generation_demand()

    def parameters(self) -> int | None:
        return largest(*without_adapter(self.models))

    def memory(self, resources: Resources) -> Need | None:
        return decoding_need(self.models, new_tokens=self.max_new_tokens, resources=self.execution(resources))

    def work(self, resources: Resources) -> Work:
        rows, execution = self.row_count(), self.execution(resources)
        seconds = decoding_seconds(without_adapter(self.models), rows=rows, resources=execution)
        return Work(gpu_seconds=seconds, disk_bytes=response_bytes(rows))

    def usage(self, results: Mapping[str, Any]) -> Usage:
        return Usage.of_tokens(results)

    def row_count(self) -> int:
        return self.prompts.row_count()

    @property
    def new_tokens(self) -> int:
        return self.max_new_tokens

    def run(self, ctx: Context) -> None:
        rows = request_rows(read_rows(ctx.path(self.prompts) / PROMPTS), samples=1, seed=self.seed, alpha=None)
        # vLLM does not come into question, and the other engines hold an adapter on its base.
        post, pre = pair_dirs(ctx, self.post, self.pre, shared=True)
        job = DecodeJob(
            anchor=model_dir(ctx, self.anchor),
            post=post,
            pre=pre,
            weight=self.weight,
            settings=settings(self),
            resources=ctx.resources,
        )
        decode_stage(ctx, job=job, rows=rows, max_error_share=self.max_error_share)


def check_weight(weight: float) -> None:
    """Raise `ValueError` for a weight w that is no finite number."""
    if not -float("inf") < weight < float("inf"):
        raise ValueError(f"weight = {weight} is not finite")


def check_tuned(anchor: Model, *, post: Model, pre: Model, adapter: bool = True) -> None:
    """Raise `UserError` when a model is not available, or the three are known to have more than one tokenizer.

    `adapter` says whether `post` may be an adapter on `pre`.
    """
    check_model(anchor)
    check_model(post, adapter=adapter)
    check_model(pre)
    check_pair(post, pre)
    try:
        check_same_tokenizer(anchor, pre)
    except UserError as error:
        raise UserError(
            f"proxy tuning adds the logits of a weak pair to those of its anchor token by token, and "
            f"{describe(anchor)} and {describe(pre)} have two tokenizers: choose models of one family"
        ) from error
