"""What can go wrong with a request, and what to do about it: try again, give the prompt up, or stop judging.

A server may quote the key: where it refuses one its text is left out, and elsewhere the client takes the key out.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from cong.errors import UserError

LONGEST_WAIT = 300.0


class JudgeUnusable(UserError):
    """No request to this judge can succeed: the key, the model or the address is wrong, or nobody answers."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A failed request."""

    reason: str
    retry: bool
    wait: float | None = None
    """Seconds that the server asked everybody to wait."""
    maybe_charged: bool = False
    """Whether the request may have been served, and billed, all the same."""
    reached: bool = True


class UnusableAnswer(Exception):
    """The server's answer is none to the request; `cost` is what it took for that, where known."""

    cost: float | None = None


def fault_of(error: Exception) -> Fault:
    """Classify what a request raised; raise `JudgeUnusable` when no other request would do better."""
    import openai

    if isinstance(error, UserError):
        raise error
    if isinstance(error, UnusableAnswer):
        return Fault(reason=str(error), retry=True, maybe_charged=True)
    if isinstance(error, openai.APITimeoutError):
        return Fault(reason="no answer in time", retry=True, maybe_charged=_sent(error), reached=_sent(error))
    if isinstance(error, openai.APIStatusError):
        return _status_fault(error.status_code, error.response.headers, _message(error))
    if isinstance(error, openai.APIConnectionError):
        reason = "the connection was cut" if _sent(error) else "no connection"
        return Fault(reason=reason, retry=True, maybe_charged=_sent(error), reached=_sent(error))
    # What nobody has foreseen is this request's alone: the others are judged, and the share of failures decides.
    return Fault(reason=f"{type(error).__name__}: {' '.join(str(error).split())}", retry=False, maybe_charged=True)


def _status_fault(status: int, headers: Mapping[str, str], message: str) -> Fault:
    if status in (401, 403):
        raise JudgeUnusable(f"the judge's server refuses the key in OPENAI_API_KEY (HTTP {status})")
    if status == 404:
        raise JudgeUnusable("the judge's server knows no such model or address (HTTP 404)")
    if status == 429 and "insufficient_quota" in message:
        raise JudgeUnusable("the judge's account has no quota left (HTTP 429, insufficient_quota)")
    wait = retry_after(headers)
    if wait is not None and wait > LONGEST_WAIT:
        return Fault(reason=f"HTTP {status}, to be tried again in {wait:.0f} s only", retry=False)
    if status in (408, 409, 429) or status >= 500:
        return Fault(reason=f"HTTP {status}", retry=True, wait=wait if wait is not None or status != 429 else 0.0)
    return Fault(reason=f"HTTP {status}: {message}".removesuffix(": "), retry=False)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait: a number, or the time until a date."""
    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _sent(error: Exception) -> bool:
    """Tell whether the request had left when it failed."""
    return type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout", "PoolTimeout")


def _message(error: Exception) -> str:
    body = getattr(error, "body", None)
    text = body.get("message") or body.get("code") if isinstance(body, dict) else None
    code = f" ({body['code']})" if isinstance(body, dict) and body.get("code") else ""
    return (" ".join(str(text or "").split()) + code).strip()
