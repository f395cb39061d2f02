"""Puts many pairs before a judge, several at a time; every pair is judged once, or carries the reason why not.

judged = judge_pairs(judge, {"p1": Pair(...), ...}, client=client, concurrency=8, progress=print)
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from cong.errors import UserError
from cong.evaluation.judging.client import Answer, JudgeClient, Unanswered
from cong.evaluation.judging.judges import HttpJudge, Pair, Verdict
from cong.evaluation.judging.ledger import BudgetReached

_REPORT_SECONDS = 1.0
_LONGEST_ERROR = 300


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A pair after judging: its verdict, or the error; tokens and US dollars of the answers behind it."""

    verdict: Verdict | None
    error: str | None = None
    over_budget: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    cached: bool = False
    """Whether all answers were there before."""


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
