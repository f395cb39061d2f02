"""An OpenAI-compatible server for tests: it answers, bills, logs, and fails as real ones do.

It prefers the longer output, by log-probabilities when asked for them, else in words. What it bills includes answers
that never arrive. Every answer and every error quotes the key it was sent, as careless servers do.
"""

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cong.graph.judging import JudgeEndpoint

PRICES = {"input_price": 10.0, "output_price": 30.0}
FAULTS = ("time-out", "429", "500", "cut", "invalid JSON", "no log-probabilities")
SLEEP = 2.5


class JudgeServer:
    """Log and bill of a server at `url`. `failing` is the share of requests that fail; `script` the first fates."""

    def __init__(
        self, *, failing: float = 0.0, seed: int = 0, script: tuple[str, ...] = (), retry_after: str = "0.15"
    ) -> None:
        self.script, self.retry_after = list(script), retry_after
        self.failing, self.random = failing, random.Random(seed)
        self.lock, self.outcomes, self.billed = threading.Lock(), [], 0.0
        self.answers: Counter[str] = Counter()
        self.times: list[float] = []
        self.url = ""

    def settings(self, **more) -> JudgeEndpoint:
        return JudgeEndpoint(url=self.url, **{"timeout": 2.0, "concurrency": 16, **PRICES, **more})

    def fate(self, body: dict) -> str:
        """Decide what becomes of a request; a prompt may ask for its fate."""
        text = body["messages"][-1]["content"]
        asked = re.search(r"always ([\w-]+)", text)
        with self.lock:
            fails = self.random.random() < self.failing
            if self.script and not asked:
                outcome = self.script.pop(0)
            else:
                outcome = asked[1] if asked else self.random.choice(FAULTS) if fails else "answered"
            self.outcomes.append(outcome)
            self.times.append(time.monotonic())
            return outcome

    def bill(self, body: dict, response: dict, *, arrives: bool) -> None:
        used = response["usage"]
        with self.lock:
            self.billed += (used["prompt_tokens"] * 10.0 + used["completion_tokens"] * 30.0) / 1e6
            if arrives:
                self.answers[hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()] += 1


def outputs_in(text: str) -> tuple[str, str]:
    found = re.search(r'"m",\s+"output": """(.*?)""".*"M",\s+"output": """(.*?)"""', text, re.DOTALL) or re.search(
        r"Assistant A's Answer\|>\n(.*?)\n<\|The End.*Assistant B's Answer\|>\n(.*?)\n<\|The End", text, re.DOTALL
    )
    assert found is not None
    return found[1], found[2]


def respond(body: dict) -> dict:
    text = body["messages"][-1]["content"]
    first, second = outputs_in(text)
    choice: dict = {"index": 0, "finish_reason": "stop"}
    if body.get("logprobs"):
        likely = "m" if len(first) >= len(second) else "M"
        both = [{"token": likely, "logprob": -0.1}, {"token": "mM".replace(likely, ""), "logprob": -2.4}]
        chosen = [] if "undecided" in text else both
        chosen = [*chosen, {"token": "The", "logprob": -9.0}]
        choice |= {"message": {"role": "assistant", "content": likely}}
        choice |= {"logprobs": {"content": [{"token": likely, "logprob": -0.1, "top_logprobs": chosen}]}}
    else:
        verdict = "A=B" if len(first) == len(second) else "A>B" if len(first) > len(second) else "B>>A"
        final = "I cannot tell." if "undecided" in text else f"My final verdict is: [[{verdict}]]"
        choice |= {"message": {"role": "assistant", "content": final}, "logprobs": None}
    tokens = {"prompt_tokens": len(text) // 4, "completion_tokens": 1 if body.get("logprobs") else 20}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [choice],
        "usage": tokens,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    judge: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = self.headers["authorization"]
        outcome, response = self.judge.fate(body), respond(body)
        if outcome in ("429", "500", "400", "401", "422"):
            padding = "x" * 265 if outcome == "422" else "no, "
            error = {"error": {"message": f"{padding}{key}", "code": None}}
            self.send(
                int(outcome), json.dumps(error), {"Retry-After": self.judge.retry_after} if outcome == "429" else {}
            )
            return
        self.judge.bill(body, response, arrives=outcome == "answered")
        if outcome == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b'{"id":')
            self.close_connection = True
            return
        if outcome == "time-out":
            time.sleep(SLEEP)
        if outcome == "no log-probabilities":
            response["choices"] = [{**response["choices"][0], "logprobs": None, "message": {"content": None}}]
        text = json.dumps({**response, "echo": key})
        self.send(200, text[:-9] if outcome == "invalid JSON" else text)

    def send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the client has gone

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the log is `JudgeServer.outcomes`."""


@contextmanager
def serving(server: JudgeServer) -> Iterator[JudgeServer]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"judge": server}))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
