"""The workers that score: each holds what its judge needs and yields rows with their reward."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cong.data import REFERENCE, Row, chat_prompt_ids
from cong.evaluation.answers import final_answer, same_answer
from cong.evaluation.programs import program_of
from cong.evaluation.sandbox import Limits, run_many
from cong.graph.resources import Resources
from cong.synthetic.world import World

KEPT = ("row_id", "prompt_id", "prompt", "sample", "response", "num_tokens", "finish_reason", "error")
BATCH = 32
CHUNK = 8 * BATCH  # Rows of similar length within a chunk share a batch.


def exact_row(world: World, row: Row) -> Row:
    """Return a row with the exact reward of its response."""
    from cong.synthetic.reward import exact_reward

    if row["error"] is not None:
        return scored(row, None)
    finished = row["finish_reason"] == "stop"
    return scored(row, exact_reward(world, prompt=row["prompt"], response=row["response"], finished=finished))


def answer_row(row: Row) -> Row:
    """Return a row with 1 or 0: whether its final answer is right."""
    if row["error"] is not None:
        return scored(row, None)
    return scored(row, float(same_answer(final_answer(row["response"]), _reference(row))))


def scored(row: Row, reward: float | None) -> Row:
    """Return the columns that are kept of a row, and its reward."""
    return {**{name: row[name] for name in KEPT}, "reward": reward}


def _reference(row: Row) -> str:
    reference = row.get(REFERENCE)
    if not reference:
        raise ValueError(f"prompt {row['prompt_id']} has no reference to check a response against")
    return reference


class TestRunner:
    """Worker that runs the code of responses against their tests."""

    __test__ = False  # not a class of tests, whatever its name

    def __init__(self, limits: Limits, resources: Resources) -> None:
        self.limits, self.workers = limits, resources.threads

    def process(self, rows: list[Row]) -> Iterator[Row]:
        """Yield every row with 1 when its code passes, else 0."""
        good = [row for row in rows if row["error"] is None]
        yield from (scored(row, None) for row in rows if row["error"] is not None)
        for start in range(0, len(good), CHUNK):
            batch = good[start : start + CHUNK]
            jobs = [(program_of(row["response"]), _reference(row)) for row in batch]
            verdicts = run_many(jobs, limits=self.limits, workers=self.workers)
            yield from (scored(row, float(verdict.passed)) for row, verdict in zip(batch, verdicts, strict=True))


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
        yield from (scored(row, None) for row in rows if row["error"] is not None)
        for start in range(0, len(good), CHUNK):
            batch = good[start : start + CHUNK]
            logprobs = [self._logprobs(model, batch) for model in self.models]
            yield from (scored(row, post - sum(pre)) for row, post, *pre in zip(batch, *logprobs, strict=True))

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
                yield scored(row, self._reward(row) if row["error"] is None else None)

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
