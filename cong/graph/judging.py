"""How a judge behind an API is asked: a part of the profile, and so of no identity."""

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class JudgeEndpoint:
    """How a judge behind an OpenAI-compatible API is asked: the table `[judging]` of a profile.

    The key is `OPENAI_API_KEY` of the environment and stands nowhere else.
    """

    url: str | None = None
    """Base URL, such as `http://localhost:8000/v1`; None takes `OPENAI_BASE_URL`, or OpenAI's own."""
    deployment: str | None = None
    """Name of what is served at the address, where that changes: its answers are kept apart from those of others."""
    concurrency: int = 8
    """Requests under way at a time."""
    timeout: float = 120.0
    """Seconds without an answer after which a request is given up."""
    attempts: int = 6
    """How often a request is sent before its prompt counts as failed."""
    input_price: float | None = None
    """US dollars per million tokens of the request; None leaves costs unknown."""
    output_price: float | None = None
    budget: float | None = None
    """US dollars that all judgments of the store may have cost together; None sets no limit."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "timeout", "attempts", "input_price", "output_price", "budget"):
            value, lowest = getattr(self, name), 1 if name in ("concurrency", "attempts") else 0
            if value is not None and value < lowest:
                raise ValueError(f"judging.{name} = {value} is below {lowest}")
        if self.budget is not None and None in (self.input_price, self.output_price):
            raise ValueError("judging.budget needs judging.input_price and judging.output_price")
        self._check_url()

    def _check_url(self) -> None:
        if self.url is None:
            return
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("judging.url is not of the form http://HOST/v1")
        # A profile is copied into records: what is secret may not stand in it.
        if parts.username or parts.password or parts.query:
            raise ValueError("judging.url holds credentials or a query: the key belongs into OPENAI_API_KEY")

    def cost(self, *, input_tokens: int, output_tokens: int) -> float | None:
        """Return what so many tokens cost in US dollars, None where the prices are unknown."""
        if self.input_price is None or self.output_price is None:
            return None
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6
