"""`Score`: a reward for every response, written to `scores.parquet` (prompt_id, sample, response, reward, ...).

The judge is a value: the exact reward of the synthetic world, a reward model, the implicit reward of a weak pair, or
the likelihood under one model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cong.data import RESPONSES, SCORES, Row, chat_prompt_ids, read_rows, write_rows
from cong.generation.rows import map_rows
from cong.graph.resources import Demand, Resources
from cong.graph.stage import Context, Stage
from cong.models import HubModel, Model, check_model, check_same_tokenizer, describe, model_dir
from cong.synthetic.world import World

KEPT = ("row_id", "prompt_id", "prompt", "sample", "response", "num_tokens", "finish_reason", "error")
BATCH = 32
CHUNK = 8 * BATCH  # Rows of similar length within a chunk share a batch.


@dataclass(frozen=True, kw_only=True)
class ExactReward:
    """The reward that defines the synthetic world."""

    world: World

    def __str__(self) -> str:
        return "exact"


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """A sequence-classification model with one score per conversation, such as ArmoRM."""

    model: Model

    def __str__(self) -> str:
        return describe(self.model).split("/")[-1]


@dataclass(frozen=True, kw_only=True)
class ImplicitReward:
    """log pi_r(y|x) - log pi_ref(y|x) of a weak pair, in nats, by a teacher-forced pass (Eq. 4 and 6 without beta)."""

    post: Model
    pre: Model

    def __str__(self) -> str:
        return "implicit"


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """log pi(y|x) of one model, in nats, by a teacher-forced pass."""

    model: Model

    def __str__(self) -> str:
        return "likelihood"


Judge = ExactReward | RewardModel | ImplicitReward | Likelihood


@dataclass(frozen=True, kw_only=True)
class Score(Stage):
    """The rewards of all responses of a stage by one judge."""

    responses: Stage
    judge: Judge
    max_error_share: float = 0.01

    def label(self) -> str:
        return str(self.judge)

    def check(self) -> None:
        implicit = isinstance(self.judge, ImplicitReward)
        for index, model in enumerate(_models(self.judge)):
            check_model(model, adapter=implicit and index == 0)
        if isinstance(self.judge, ImplicitReward):
            check_same_tokenizer(self.judge.post, self.judge.pre)

    def demand(self, resources: Resources) -> Demand:
        return resources.generation_demand() if _models(self.judge) else Demand(cpus=1)

    def run(self, ctx: Context) -> None:
        rows = read_rows(ctx.path(self.responses) / RESPONSES, columns=KEPT)
        scored = self._score(ctx, rows)
        write_rows(ctx.out / SCORES, scored)
        rewards = [row["reward"] for row in scored if row["reward"] is not None]
        ctx.summary(rows=len(scored), scored_rows=len(rewards), mean_reward=sum(rewards) / max(len(rewards), 1))

    def _score(self, ctx: Context, rows: list[Row]) -> list[Row]:
        if isinstance(self.judge, ExactReward):
            return [_exact(self.judge.world, row) for row in rows]
        directories = tuple(model_dir(ctx, model) for model in _models(self.judge))
        if isinstance(self.judge, ImplicitReward | Likelihood):
            worker = partial(LogprobScorer, directories, ctx.resources)
        else:
            trusted = isinstance(self.judge.model, HubModel) and self.judge.model.trust_remote_code
            worker = partial(RewardScorer, directories, ctx.resources, trust_remote_code=trusted)
        return map_rows(ctx, worker, rows, max_error_share=self.max_error_share)


class LogprobScorer:
    """Worker that holds a weak pair and computes implicit rewards, or one model and computes likelihoods."""

    def __init__(self, directories: tuple[Path, ...], resources: Resources) -> None:
        import torch
        from transformers import AutoTokenizer

        from cong.decoding import load_model, load_pair

        if resources.device == "cpu":
            torch.set_num_threads(resources.threads)
        # The last one is never an adapter, which may lack a tokenizer of its own.
        self.tokenizer = AutoTokenizer.from_pretrained(directories[-1])
        load = {"dtype": resources.dtype, "device": resources.device}
        if len(directories) == 1:
            self.models = [load_model(directories[0], **load)]
        else:
            self.models = list(load_pair(post=directories[0], pre=directories[1], **load))

    def process(self, rows: list[Row]) -> Iterator[Row]:
        """Yield every row with log pi_r - log pi_ref, or log pi, of its response and end token."""
        good = [row for row in rows if row["error"] is None]
        yield from (_scored(row, None) for row in rows if row["error"] is not None)
        for start in range(0, len(good), CHUNK):
            batch = good[start : start + CHUNK]
            logprobs = [self._logprobs(model, batch) for model in self.models]
            yield from (_scored(row, post - sum(pre)) for row, post, *pre in zip(batch, *logprobs, strict=True))

    def _logprobs(self, model: Any, rows: list[Row]) -> list[float]:
        from cong.decoding import teacher_forced_logprobs

        prompts = [chat_prompt_ids(self.tokenizer, row["prompt"]) for row in rows]
        completions = [self._completion(row) for row in rows]
        return teacher_forced_logprobs(model, prompts=prompts, completions=completions, batch_size=BATCH)

    def _completion(self, row: Row) -> tuple[int, ...]:
        # The text crosses over from whichever model wrote it; its token ids may be of another tokenizer.
        tokens = self.tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        end = [self.tokenizer.eos_token_id] if row["finish_reason"] == "stop" else []
        return tuple(tokens) + tuple(end)


class RewardScorer:
    """Worker that holds a sequence-classification reward model."""

    def __init__(self, directories: tuple[Path, ...], resources: Resources, *, trust_remote_code: bool = False) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if resources.device == "cpu":
            torch.set_num_threads(resources.threads)
        dtype = getattr(torch, resources.dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(directories[0])
        model = AutoModelForSequenceClassification.from_pretrained(
            directories[0], dtype=dtype, trust_remote_code=trust_remote_code
        )
        self.model = model.to(resources.device).eval()

    def process(self, rows: list[Row]) -> Iterator[Row]:
        """Yield every row with the model's score of the conversation."""
        import torch

        with torch.inference_mode():
            for row in rows:
                yield _scored(row, self._reward(row) if row["error"] is None else None)

    def _reward(self, row: Row) -> float:
        conversation = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["response"]},
        ]
        tokens = self.tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True)
        output = self.model(**tokens.to(self.model.device))
        # ArmoRM's own class calls its scalar `score`; plain classifiers have one logit.
        reward = output["score"] if "score" in output else output.logits  # noqa: SIM401 - `logits` may be missing
        return float(reward.float().reshape(-1)[0])


def _models(judge: Judge) -> tuple[Model, ...]:
    if isinstance(judge, ImplicitReward):
        return (judge.post, judge.pre)
    return (judge.model,) if isinstance(judge, RewardModel | Likelihood) else ()


def _exact(world: World, row: Row) -> Row:
    from cong.synthetic.reward import exact_reward

    if row["error"] is not None:
        return _scored(row, None)
    finished = row["finish_reason"] == "stop"
    return _scored(row, exact_reward(world, prompt=row["prompt"], response=row["response"], finished=finished))


def _scored(row: Row, reward: float | None) -> Row:
    return {**{name: row[name] for name in KEPT}, "reward": reward}
