"""The worker that decodes: it holds one model, the weak pair, or an anchor and the pair, and a decoding engine."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.data import RESPONSES, Row, write_rows
from cong.data.conversations import CARRIED
from cong.data.formatting import STOP_TOKEN, TOKENS, prompt_tokens, response_text
from cong.data.map_rows import map_rows
from cong.generation.backends import backend_note, make_engine
from cong.graph.libraries import import_libraries
from cong.graph.resources import Resources
from cong.graph.stage import Context
from cong.models import LocalModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from cong.decoding import Completion, Request


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """All that a worker must know. `pre` is None for plain decoding of `post`; with an `anchor` the pair tunes it."""

    post: Path
    pre: Path | None = None
    anchor: Path | None = None
    weight: float = 1.0
    """w of proxy tuning, used with an anchor only."""
    settings: dict[str, Any]
    resources: Resources

    @property
    def backend(self) -> str:
        """Return the name of the engine that decodes, for a record."""
        adapter = LocalModel(path=str(self.post)).is_adapter
        return backend_note(self.resources, adapter=adapter, anchor=self.anchor is not None)


def decode_stage(ctx: Context, *, job: DecodeJob, rows: list[Row], max_error_share: float) -> None:
    """Decode all rows of a stage and write `responses.parquet`."""
    responses = map_rows(ctx, partial(Decoder, job), rows, max_error_share=max_error_share)
    ctx.summary(backend=job.backend)
    write_responses(ctx, responses)


def write_responses(ctx: Context, responses: list[Row]) -> None:
    """Write `responses.parquet`, and say how long responses are and how many came to no end."""
    write_rows(ctx.out / RESPONSES, responses)
    good = [row for row in responses if row["error"] is None]
    ctx.summary(
        mean_tokens=sum(row["num_tokens"] for row in good) / max(len(good), 1),
        unfinished_share=sum(row["finish_reason"] == "length" for row in good) / max(len(good), 1),
    )


class Decoder:
    """Holds the models on one device and decodes rows as slots become free."""

    def __init__(self, job: DecodeJob) -> None:
        import_libraries("cong.decoding")
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.job = job
        self.tokenizer, self.engine = make_engine(
            post=job.post, pre=job.pre, anchor=job.anchor, settings=job.settings, resources=job.resources
        )

    @property
    def decoded_tokens(self) -> int:
        """New tokens since the models were loaded, of unfinished rows too as far as the engine knows."""
        return self.engine.decoded_tokens

    def process(self, rows: list[Row]) -> Iterator[Row]:
        """Yield every row with its response, in the order in which they finish."""
        index = {row["row_id"]: row for row in rows}
        refused: list[Completion] = []
        for completion in self.engine.decode(self._requests(rows, refused)):
            yield self._response(index[completion.row_id], completion)
        yield from (self._response(index[completion.row_id], completion) for completion in refused)

    def _requests(self, rows: list[Row], refused: "list[Completion]") -> "Iterator[Request]":
        from cong.decoding.types import Request, error_completion

        for row in rows:
            contrast = {} if row["alpha"] is None else {"alpha": row["alpha"]}
            request = Request(
                row_id=row["row_id"], prompt_token_ids=(), seed=row["seed"], weight=self.job.weight, **contrast
            )
            try:
                yield dataclasses.replace(request, prompt_token_ids=prompt_tokens(self.tokenizer, row))
            except Exception as error:
                # Chat templates raise what they like at messages that they do not understand: the row keeps it.
                reason = f"the chat cannot be formatted: {type(error).__name__}: {error}"
                refused.append(error_completion(request, reason))

    def _response(self, row: Row, completion: "Completion") -> Row:
        anchored = {} if self.job.anchor is None else {"logprob_anchor": completion.logprob_anchor}
        return response_row(row, completion, tokenizer=self.tokenizer) | anchored


def response_row(row: Row, completion: "Completion", *, tokenizer: "PreTrainedTokenizerBase") -> Row:
    """Return the columns of a response, from what was asked and what was decoded."""
    post, pre = completion.logprob_post, completion.logprob_pre
    return {
        "row_id": row["row_id"],
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "sample": row["sample"],
        "alpha": row["alpha"],
        "response": response_text(tokenizer, completion.token_ids),
        TOKENS: list(completion.token_ids),
        STOP_TOKEN: completion.stop_token_id,
        "num_tokens": completion.num_tokens,
        "finish_reason": completion.finish_reason,
        "logprob_post": post,
        "logprob_pre": pre,
        "implicit_reward": None if pre is None else post - pre,
        "error": completion.error,
        **{name: row[name] for name in CARRIED if name in row},
    }
