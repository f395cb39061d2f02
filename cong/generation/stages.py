"""`Generate` and `ContrastiveGenerate`: responses to prompts, written to `responses.parquet`.

Columns: prompt_id, prompt, sample, alpha, response, response_token_ids, num_tokens, finish_reason, logprob_post
(log pi_r of the response), logprob_pre (log pi_ref), implicit_reward (their difference, Eq. 4 without beta), error,
stop_token_id (the token that ended the response, which the log-probabilities cover and the text and its tokens do not).
Prompts and responses are not stripped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from cong.data import PROMPTS, Row, read_rows, row_seed
from cong.data.conversations import CARRIED
from cong.generation.backends import can_share, check_backend
from cong.generation.decode import DecodeJob, decode_stage
from cong.generation.needs import decoding_need, is_adapter, without_adapter
from cong.graph.demand import Demand
from cong.graph.fingerprint import LATER
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Usage, Work
from cong.models import Model, check_chat, check_model, check_pair, largest, model_dir, pair_dirs
from cong.models.work import decoding_seconds, response_bytes


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn. Temperature 0 is greedy; `repetition_penalty` is that of CTRL (Keskar et al., 2019).

    `top_k` draws among the so many likeliest tokens, None among all.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    top_k: int | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature = {self.temperature} is below 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p} is not in (0, 1]")
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty = {self.repetition_penalty} is not above 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k = {self.top_k} is below 1")

    def seed(self, seed: int) -> int:
        """Return the seed of a decoding: greedy decoding draws nothing, so all seeds share one stage."""
        return seed if self.temperature > 0 else 0

    def __str__(self) -> str:
        return "greedy" if self.temperature == 0 else f"T={self.temperature:g}"


@dataclass(frozen=True, kw_only=True)
class Generate(Stage):
    """`samples` responses of one model to every prompt, by plain decoding."""

    model: Model
    prompts: Stage
    max_new_tokens: int
    samples: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    max_error_share: float = 0.01

    def __post_init__(self) -> None:
        if self.samples < 1 or self.max_new_tokens < 1:
            raise ValueError(f"samples = {self.samples} and max_new_tokens = {self.max_new_tokens} must be at least 1")

    def label(self) -> str:
        return f"{self.sampling}" + (f",n={self.samples}" if self.samples > 1 else "")

    def check(self) -> None:
        check_model(self.model)
        check_chat(self.model)

    def check_execution(self, resources: Resources) -> None:
        check_backend(self.execution(resources))

    def demand(self, resources: Resources) -> Demand:
        return self.execution(resources).generation_demand()

    def parameters(self) -> int | None:
        return largest(self.model)

    def memory(self, resources: Resources) -> Need | None:
        return decoding_need((self.model,), new_tokens=self.max_new_tokens, resources=self.execution(resources))

    def work(self, resources: Resources) -> Work:
        rows, execution = self.row_count(), self.execution(resources)
        seconds = decoding_seconds((self.model,), rows=rows, resources=execution)
        return Work(gpu_seconds=seconds, disk_bytes=response_bytes(rows))

    def usage(self, results: Mapping[str, Any]) -> Usage:
        return Usage.of_tokens(results)

    def row_count(self) -> int:
        return self.samples * self.prompts.row_count()

    def prompt_count(self) -> int:
        return self.prompts.row_count()

    @property
    def new_tokens(self) -> int:
        return self.max_new_tokens

    @property
    def evaluated_model(self) -> Any:
        return self.model

    def run(self, ctx: Context) -> None:
        rows = request_rows(read_rows(ctx.path(self.prompts) / PROMPTS), samples=self.samples, seed=self.seed)
        job = DecodeJob(post=model_dir(ctx, self.model), settings=settings(self), resources=ctx.resources)
        decode_stage(ctx, job=job, rows=rows, max_error_share=self.max_error_share)


@dataclass(frozen=True, kw_only=True)
class ContrastiveGenerate(Stage):
    """One response to every prompt by contrastive decoding of a weak pair (Eq. 7, 8 and 10).

    `post` is pi_r, `pre` is pi_ref, `alpha` the contrastive coefficient in [0, 1], `pruning_threshold` lambda.

    `scores="official"` reproduces the scores of the published code, which normalises log pi_ref a second time after
    pruning: given the tokens of a prompt, greedy decoding chooses the tokens that the published loop chooses without
    sampling. It does not reproduce the published pipeline around the scores:

    - Sampling. The published loop leaves it to the generation config of the checkpoint, by which the paper's models
      sample (temperature 0.8, top-p 0.95 in its files). The paper says greedy, and so is the default of `sampling`.
    - Tokens of the prompt. The published code tokenizes a formatted chat again, which gives Llama's prompts a second
      BOS. Here the template alone writes special tokens. The paper is silent.
    - White space. The published scripts strip prompts and responses. Here neither is stripped: a model is trained on,
      and scored by, the very tokens that were chosen. The paper is silent.
    - Choice and order of the prompts. The published scripts sort them, hold out 1 %, and drop those whose five
      candidates are equal before contrastive decoding too. Here all are decoded, in the order of their source, and
      such prompts are dropped from the pairs of DPO alone. The paper drops them, and does not say where.
    """

    post: Model
    pre: Model
    prompts: Stage
    alpha: float
    max_new_tokens: int
    pruning_threshold: float = 0.1
    sampling: Sampling = field(default_factory=lambda: Sampling(repetition_penalty=1.2))
    scores: Literal["formula", "official"] = "formula"
    seed: int = 0
    max_error_share: float = 0.01

    def __post_init__(self) -> None:
        for name in ("alpha", "pruning_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)} is not in [0, 1]")
        if self.scores not in ("formula", "official"):
            raise ValueError(f"scores = {self.scores!r} is neither 'formula' nor 'official'")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens = {self.max_new_tokens} must be at least 1")

    def label(self) -> str:
        return f"alpha={self.alpha:g}"

    def check(self) -> None:
        check_model(self.post, adapter=True)
        check_model(self.pre)
        check_pair(self.post, self.pre)
        check_chat(self.pre)

    def check_execution(self, resources: Resources) -> None:
        check_backend(self.execution(resources), adapter=is_adapter(self.post))

    def demand(self, resources: Resources) -> Demand:
        return self.execution(resources).generation_demand()

    def parameters(self) -> int | None:
        return largest(*without_adapter((self.post, self.pre)))

    def memory(self, resources: Resources) -> Need | None:
        pair = (self.post, self.pre)
        return decoding_need(pair, new_tokens=self.max_new_tokens, resources=self.execution(resources))

    def work(self, resources: Resources) -> Work:
        rows, execution = self.row_count(), self.execution(resources)
        seconds = decoding_seconds((self.post, self.pre), rows=rows, resources=execution)
        return Work(gpu_seconds=seconds, disk_bytes=response_bytes(rows))

    def usage(self, results: Mapping[str, Any]) -> Usage:
        return Usage.of_tokens(results)

    def row_count(self) -> int:
        return self.prompts.row_count()

    @property
    def new_tokens(self) -> int:
        return self.max_new_tokens

    def run(self, ctx: Context) -> None:
        rows = request_rows(read_rows(ctx.path(self.prompts) / PROMPTS), samples=1, seed=self.seed, alpha=self.alpha)
        contrast = {"pruning_threshold": self.pruning_threshold, "scores": self.scores}
        post, pre = pair_dirs(ctx, self.post, self.pre, shared=can_share(ctx.resources))
        job = DecodeJob(
            post=post,
            pre=pre,
            settings=settings(self) | contrast,
            resources=ctx.resources,
        )
        decode_stage(ctx, job=job, rows=rows, max_error_share=self.max_error_share)


class Decodes(Protocol):
    """A stage that decodes."""

    @property
    def max_new_tokens(self) -> int: ...

    @property
    def sampling(self) -> Sampling: ...


def settings(stage: Decodes) -> dict[str, Any]:
    """Return the decoding settings that all stages share."""
    return decoding_settings(stage.sampling, max_new_tokens=stage.max_new_tokens)


def decoding_settings(sampling: Sampling, *, max_new_tokens: int) -> dict[str, Any]:
    """Return what an engine is given to draw so (`cong.decoding.Decoding`)."""
    return {
        "max_new_tokens": max_new_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
    }


def request_rows(prompts: list[Row], *, samples: int, seed: int, alpha: float | None = 1.0) -> list[Row]:
    """Return one row to decode per prompt and sample, each with an id and a seed of its own."""
    return [
        {
            "row_id": f"{row['prompt_id']}#{sample}",
            "prompt_id": row["prompt_id"],
            "prompt": row["prompt"],
            "sample": sample,
            "alpha": alpha,
            "seed": row_seed(seed=seed, prompt_id=row["prompt_id"], sample=sample),
            **{name: row[name] for name in CARRIED if name in row},
        }
        for row in prompts
        for sample in range(samples)
    ]
