"""Asks a judge behind an OpenAI-compatible API: retries, rate limits, the cache, the budget, and the key kept secret.

    client = JudgeClient(settings=resources.judging, directory=root / ".judgments")
    answer = client.ask({"model": ..., "messages": [...], "max_tokens": 1}, usable=check)   # from any thread

`openai`'s own retries are off: every sending must be booked before it leaves.
"""

import json
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.evaluation.judging.cache import AnswerCache, Body, place_of, request_key
from cong.evaluation.judging.faults import Fault, JudgeUnusable, UnusableAnswer, fault_of
from cong.evaluation.judging.ledger import Ledger
from cong.graph.judging import JudgeEndpoint

KEY = "OPENAI_API_KEY"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
_MESSAGE_TOKENS = 16
_SHORTEST_SECRET = 8
_LONGEST_REASON = 300

Usable = Callable[[Body], None]
"""Raises `UnusableAnswer` when a response is no answer to its request."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response, what it cost when it was made, and whether it was made before."""

    response: Body
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    cached: bool


class Unanswered(Exception):
    """A request that was given up; the message is the reason."""


def api_key() -> str:
    """Return the key of the environment; raise `UserError` when there is none."""
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise UserError(f"{KEY} is not set: the judge's server wants a key (one that wants none takes any text)")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"{KEY} holds a character that no key has")
    return key


class JudgeClient:
    """A connection to one server, with the cache and the ledger in `directory`. It may be shared by threads."""

    def __init__(self, *, settings: JudgeEndpoint, directory: Path) -> None:
        import openai

        self._settings, self._key = settings, api_key()
        self._cache = AnswerCache(directory / "answers")
        # A request under way is settled within its time-out.
        self.ledger = Ledger(directory / "ledger.jsonl", budget=settings.budget, patience=2 * settings.timeout)
        self._openai = openai.OpenAI(api_key=self._key, base_url=settings.url, timeout=settings.timeout, max_retries=0)
        # What the client settled on: the profile's address, else that of the environment, else OpenAI's own.
        self._server = place_of(str(self._openai.base_url), deployment=settings.deployment)
        self._stopped, self._resume_at = threading.Event(), 0.0

    def ask(self, body: Body, *, usable: Usable) -> Answer:
        """Return the answer from the cache, or from the server.

        Raises `Unanswered` when this request is given up, `JudgeUnusable` when no request can succeed and
        `BudgetReached` when it might cost more than is left.
        """
        key = request_key(body, server=self._server)
        try:
            with self._cache.claim(key) as entry:
                if entry is not None and _is_usable(entry, usable):
                    return self._answer(entry["response"], cached=True)
                return self._send_until_answered(key, body, usable)
        except JudgeUnusable:
            self._stopped.set()
            raise

    def stop(self) -> None:
        """Let no further request leave, and close the connections."""
        self._stopped.set()
        self._openai.close()

    def _send_until_answered(self, key: str, body: Body, usable: Usable) -> Answer:
        reasons: list[str] = []
        fault = None
        for attempt in range(self._settings.attempts):
            self._pause(fault, attempt)
            fault = None
            ticket = self.ledger.reserve(upper_bound(body, self._settings))
            try:
                answer = self._send(body, usable)
                # In this order: a kill in between leaves an answer that is kept, and a bound in its cost's place.
                self._cache.put(key, {"server": self._server, "request": body, "response": answer.response})
                self.ledger.settle(ticket, answer.cost)
                return answer
            except Exception as error:
                # Whatever quotes the request or its headers ends here.
                fault = self._book(error, ticket)
            # Shortened after the key is out: a half of it would not be found.
            reasons.append(_redacted(fault.reason, self._key)[:_LONGEST_REASON])
            if not fault.retry:
                break
        else:
            if fault is not None and not fault.reached:
                raise JudgeUnusable(f"the judge's server does not answer ({len(reasons)} attempts)")
        raise Unanswered(_reasons_text(reasons))

    def _send(self, body: Body, usable: Usable) -> Answer:
        raw = self._openai.chat.completions.with_raw_response.create(**body)
        response = _parsed(_redacted(raw.text, self._key))
        if not isinstance(response, dict) or not response.get("choices"):
            raise UnusableAnswer("the answer has no choices")
        answer = self._answer(response, cached=False)
        try:
            usable(response)
        except UnusableAnswer as error:
            error.cost = answer.cost
            raise
        return answer

    def _book(self, error: Exception, ticket: str) -> Fault:
        """Settle a failed request: with its cost, where that is known, or its bound, where it may have been charged."""
        try:
            fault = fault_of(error)
        except JudgeUnusable as unusable:
            self.ledger.settle(ticket, 0.0)
            raise unusable from None
        cost = error.cost if isinstance(error, UnusableAnswer) else None
        self.ledger.settle(ticket, cost if fault.maybe_charged else 0.0)
        return fault

    def _pause(self, fault: Fault | None, attempt: int) -> None:
        if fault is not None:
            pause = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * random.uniform(0.75, 1.0)
            if fault.wait is not None:
                # A rate limit is everybody's: nobody asks again before it is over.
                self._resume_at = max(self._resume_at, time.monotonic() + max(fault.wait, pause))
            elif self._stopped.wait(pause):
                raise Unanswered("judging was stopped")
        while (left := self._resume_at - time.monotonic()) > 0 or self._stopped.is_set():
            if self._stopped.wait(left):
                raise Unanswered("judging was stopped")

    def _answer(self, response: Body, *, cached: bool) -> Answer:
        given, made = (_count(response.get("usage"), name) for name in ("prompt_tokens", "completion_tokens"))
        cost = None
        if given is not None and made is not None:
            cost = self._settings.cost(input_tokens=given, output_tokens=made)
        return Answer(response=response, input_tokens=given, output_tokens=made, cost=cost, cached=cached)


def _parsed(text: str) -> Any:
    """Return an answer; raise `UnusableAnswer` for one that is no JSON, or holds text that no file can hold."""
    try:
        response = json.loads(text)
        json.dumps(response, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnusableAnswer("the answer holds half a character") from None
    except (ValueError, RecursionError):
        raise UnusableAnswer("the answer is no JSON") from None
    return response


def _is_usable(entry: Any, usable: Usable) -> bool:
    """Tell whether a kept answer is one; an earlier version may have kept what is none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("response"), dict):
        return False
    try:
        usable(entry["response"])
    except UnusableAnswer:
        return False
    return True


def _count(usage: Any, name: str) -> int | None:
    """Return a number of tokens, None where the server does not say one."""
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def upper_bound(body: Body, settings: JudgeEndpoint) -> float:
    """Return the most that a request can cost, 0 where prices are unknown: no token is shorter than a byte."""
    text = sum(len(message["content"].encode()) + _MESSAGE_TOKENS for message in body["messages"])
    longest: Any = body.get("max_completion_tokens") or body.get("max_tokens")
    if settings.budget is not None and longest is None:
        raise UserError("a budget needs a judge whose requests state max_tokens or max_completion_tokens")
    return settings.cost(input_tokens=text + _MESSAGE_TOKENS, output_tokens=longest or 0) or 0.0


def _reasons_text(reasons: list[str]) -> str:
    """Return the reasons of a failure, each once, in the order in which they came."""
    counts = {reason: reasons.count(reason) for reason in reasons}
    texts = [reason + (f" ({count} times)" if count > 1 else "") for reason, count in counts.items()]
    return f"{len(reasons)} attempts failed: {'; '.join(texts)}"


def _redacted(text: str, key: str) -> str:
    """Return a text without the key; texts such as EMPTY, which local servers take for a key, are no secrets."""
    return text.replace(key, "[key]") if len(key) >= _SHORTEST_SECRET else text
