"""Judges behind an API: many pairs at a time; every pair is judged once, or carries the reason why not.

judged = judge_pairs(judge, {"p1": Pair(...), ...}, client=client, concurrency=8, progress=print)
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from cong.errors import UserError, require
from cong.evaluation.judging.cache import Body
from cong.evaluation.judging.client import Answer, JudgeClient, Unanswered, api_key
from cong.evaluation.judging.ledger import BudgetReached
from cong.evaluation.judging.pairs import Judged, Pair, PairJudge, Verdict
from cong.graph.stage import Context

JUDGMENTS = ".judgments"
"""Directory in the store that holds the answers of HTTP judges, and the ledger of their cost, for all stages."""
_REPORT_SECONDS = 1.0
_LONGEST_ERROR = 300


class HttpJudge(PairJudge):
    """A judge behind an OpenAI-compatible API: says what is asked of a pair, and reads the answers."""

    @abstractmethod
    def requests(self, pair: Pair) -> list[Body]:
        """Return what to ask about a pair."""

    @abstractmethod
    def check_answer(self, response: Body) -> None:
        """Raise `UnusableAnswer` when a response is no answer."""

    @abstractmethod
    def verdict(self, pair: Pair, responses: Sequence[Body]) -> Verdict:
        """Read the verdict from the answers to all requests."""

    def check(self) -> None:
        require("openai", extra="judges")
        api_key()

    def judge(self, pairs: Mapping[str, Pair], ctx: Context) -> dict[str, Judged]:
        endpoint = ctx.resources.judging
        client = JudgeClient(settings=endpoint, directory=judgments_dir(ctx))
        progress = partial(_progress, ctx, len(pairs))
        judged = judge_pairs(self, pairs, client=client, concurrency=endpoint.concurrency, progress=progress)
        ctx.summary(spent_now=None if endpoint.input_price is None else client.ledger.booked)
        return judged


def judgments_dir(ctx: Context) -> Path:
    """Return the directory of the answers, which all stages of a store share."""
    return ctx.root / JUDGMENTS


def _progress(ctx: Context, total: int, done: int) -> None:
    ctx.progress(done=done, total=total, unit="prompts")


def judge_pairs(
    judge: HttpJudge,
    pairs: Mapping[str, Pair],
    *,
    client: JudgeClient,
    concurrency: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Judged]:
    """Return every pair's result; raise `JudgeUnusable` at once when the judge cannot be asked at all."""
    found: dict[str, Judged] = {}
    reported = time.monotonic()
    # Without this, an interrupt would wait for every request that was not sent yet.
    pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="judge")
    try:
        futures: dict[Future[Judged], str] = {
            pool.submit(_judged, judge, pair, client): name for name, pair in pairs.items()
        }
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            if time.monotonic() - reported > _REPORT_SECONDS:
                progress(len(found))
                reported = time.monotonic()
    finally:
        client.stop()
        pool.shutdown(cancel_futures=True)
    progress(len(found))
    return {name: found[name] for name in pairs}


def _judged(judge: HttpJudge, pair: Pair, client: JudgeClient) -> Judged:
    answers: list[Answer] = []
    try:
        for body in judge.requests(pair):
            answers.append(client.ask(body, usable=judge.check_answer))
    except BudgetReached as error:
        return _judgement(None, answers, error=str(error), over_budget=True)
    except Unanswered as error:
        return _judgement(None, answers, error=str(error))
    except UserError:
        raise
    except Exception as error:
        # Such as a text that no request can hold: it is this pair's error, and the stage counts those.
        return _judgement(None, answers, error=f"{type(error).__name__}: {error}"[:_LONGEST_ERROR])
    return _judgement(judge.verdict(pair, [answer.response for answer in answers]), answers)


def _judgement(
    verdict: Verdict | None, answers: list[Answer], *, error: str | None = None, over_budget: bool = False
) -> Judged:
    costs = [answer.cost for answer in answers]
    return Judged(
        verdict=verdict,
        error=error,
        over_budget=over_budget,
        input_tokens=sum(answer.input_tokens or 0 for answer in answers),
        output_tokens=sum(answer.output_tokens or 0 for answer in answers),
        cost=None if None in costs else sum(cost for cost in costs if cost is not None),
        cached=all(answer.cached for answer in answers),
    )
