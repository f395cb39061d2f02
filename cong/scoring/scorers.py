"""The workers that score: each holds what its reward needs and yields rows with their reward."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cong.data import REFERENCE, Row
from cong.data.formatting import ResponseTokens, prompt_tokens
from cong.data.programs import program_of
from cong.generation.loading import check_vocabularies, load_models, load_tokenizers
from cong.graph.libraries import import_libraries
from cong.graph.resources import Resources
from cong.sandbox import Limits, run_many
from cong.scoring.scored import UNCHECKED, scored

BATCH = 32
CHUNK = 8 * BATCH  # Rows of similar length within a chunk share a batch.
Tokens = tuple[tuple[int, ...], tuple[int, ...]]
"""Of a prompt and of its response."""


class TestRunner:
    """Worker that runs the code of responses against their tests."""

    __test__ = False  # not a class of tests, whatever its name

    def __init__(self, limits: Limits, resources: Resources) -> None:
        self.limits, self.workers = limits, resources.hardware.threads

    def process(self, rows: list[Row]) -> Iterator[Row]:
        """Yield every row with 1 when its code passes, else 0."""
        good = [row for row in rows if row["error"] is None and row.get(REFERENCE)]
        bad = (row for row in rows if row["error"] is not None or not row.get(REFERENCE))
        yield from (scored(row, None, error=UNCHECKED) for row in bad)
        for start in range(0, len(good), CHUNK):
            batch = good[start : start + CHUNK]
            jobs = [(program_of(row["response"]), row[REFERENCE]) for row in batch]
            verdicts = run_many(jobs, limits=self.limits, workers=self.workers)
            yield from (scored(row, float(verdict.passed)) for row, verdict in zip(batch, verdicts, strict=True))


class LogprobScorer:
    """Worker that holds a weak pair and computes implicit rewards, or one model and computes likelihoods."""

    def __init__(self, directories: tuple[Path, ...], resources: Resources) -> None:
        import_libraries("cong.decoding")
        import torch

        from cong.decoding.models import common_positions, common_rope_end, common_vocab_size, stop_token_ids

        if resources.hardware.device == "cpu":
            torch.set_num_threads(resources.hardware.threads)
        post, pre = directories[0], directories[1] if len(directories) > 1 else None
        tokenizers = load_tokenizers(post, pre)
        check_vocabularies(post, pre, tokenizers=tokenizers)
        self.tokenizer, self.models = tokenizers[0], load_models(post, pre, resources)
        configs = [model.config for model in self.models]
        self.positions, self.vocabulary = common_positions(*configs), common_vocab_size(*configs)
        # A rope that follows the longest row of a batch would make a score depend on the rows beside it.
        self.batch_size = BATCH if common_rope_end(*configs) is None else 1
        stop_ids = stop_token_ids(self.models[0], self.tokenizer)
        self._responses = ResponseTokens(self.tokenizer, stop_ids=stop_ids)

    def process(self, rows: list[Row]) -> Iterator[Row]:
        """Yield every row with log pi_r - log pi_ref, or log pi, of its response and end token."""
        for start in range(0, len(rows), CHUNK):
            batch: list[tuple[Row, Tokens]] = []
            for row in rows[start : start + CHUNK]:
                tokens = self.tokens(row)
                if isinstance(tokens, str):
                    yield scored(row, None, error=tokens)
                else:
                    batch.append((row, tokens))
            rewards = self.rewards([tokens for _, tokens in batch])
            yield from (scored(row, reward) for (row, _), reward in zip(batch, rewards, strict=True))

    def tokens(self, row: Row, *, prompt: tuple[int, ...] | None = None) -> Tokens | str:
        """Return the tokens of prompt (where they are known, those) and response, or why this row has no score."""
        if row["error"] is not None:
            return row["error"]
        try:
            tokens = prompt or prompt_tokens(self.tokenizer, row), self._responses.of(row)
        except Exception as error:
            # Chat templates and tokenizers raise what they like at texts that they do not understand.
            return f"the chat cannot be formatted: {type(error).__name__}: {error}"
        return tokens_fault(*tokens, vocabulary=self.vocabulary, positions=self.positions) or tokens

    def rewards(self, batch: Sequence[Tokens], *, most_tokens: int | None = None) -> list[float]:
        """Return log pi_r - log pi_ref, or log pi, of responses; `most_tokens` of them are in a pass."""
        from cong.decoding import teacher_forced_logprobs

        prompts, completions = [prompt for prompt, _ in batch], [response for _, response in batch]
        logprobs = [
            teacher_forced_logprobs(
                model,
                prompts=prompts,
                completions=completions,
                batch_size=self.batch_size,
                most_tokens=most_tokens,
            )
            for model in self.models
        ]
        return [post - sum(pre) for post, *pre in zip(*logprobs, strict=True)]


def tokens_fault(
    prompt: Sequence[int], response: Sequence[int], *, vocabulary: int, positions: int | None
) -> str | None:
    """Return why a model cannot read these tokens, None when it can."""
    if not prompt:
        return "the prompt is empty"
    count = len(prompt) + len(response)
    if positions is not None and count > positions:
        return f"prompt and response have {count} tokens; the model has positions for {positions}"
    largest = max((*prompt, *response))
    return f"token id {largest} is outside the vocabulary [0, {vocabulary - 1}]" if largest >= vocabulary else None
