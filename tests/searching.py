"""Searches of tiny random models, and a brute-force reference that shares no code with the library's search."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import spoken
import torch
from reference_decoding import next_logprobs
from toy import INLINE
from transformers import AutoModelForCausalLM, AutoTokenizer

from cong.data import row_seed
from cong.data.prompts import LocalFile, PromptFile
from cong.generation import Sampling
from cong.graph.stage import Context
from cong.models import LocalModel
from cong.search import Search
from cong.search.worker import Searcher

DRAWN = Sampling(temperature=1.2, top_k=40)
MOST = 12
PROMPT_TEXTS = [f"ask {number}" + "!" * (number % 5) for number in range(6)]


SHAPE = ("beams", "expansions", "chunk")
FAMILIES: dict[str, dict[str, Any]] = {
    "one tokenizer": {"strong": "strong", "pair": ("post", "pre")},
    "a weak pair of longer tokens": {"strong": "strong", "pair": ("merged-post", "merged-pre")},
    "a strong model of longer tokens": {"strong": "merged-strong", "pair": ("post", "pre")},
}


def make_models(directory: Path) -> Path:
    """Of two families: `strong` and the pair write one character a token, `merged` and its pair often two."""
    for seed, name in enumerate(("strong", "post", "pre")):
        spoken.checkpoint(directory / name, seed=seed)
        merged = spoken.byte_tokenizer(merges=[(a, b) for a in "AEIOUaeiou" for b in "bcdfgh"])
        spoken.checkpoint(directory / f"merged-{name}", seed=seed + 3, tokenizer=merged)
    return directory


def stage(models: Path, *, strong: str = "strong", pair: tuple[str, str] = ("post", "pre"), **settings) -> Search:
    defaults: dict[str, Any] = {"beams": 2, "expansions": 2, "chunk": 3, "max_new_tokens": MOST, "sampling": DRAWN}
    handles = (LocalModel(path=str(models / name)) for name in (strong, *pair))
    strong_model, post, pre = handles
    # The prompts are given as rows: the stage that would hold them is never asked.
    prompts = PromptFile(file=LocalFile(path=__file__))
    return Search(model=strong_model, post=post, pre=pre, prompts=prompts, **(defaults | settings))


def prompt_rows(texts=PROMPT_TEXTS) -> list[dict]:
    return [{"prompt_id": f"p{number}", "prompt": text} for number, text in enumerate(texts)]


def search(searching: Search, tmp_path: Path, *, rows=None, slots: int = 4) -> list[dict]:
    """Search rows in this process, in the order in which they finish."""
    resources = INLINE.changed(slots=slots)
    ctx = Context(out=tmp_path, root=tmp_path, resources=resources, locate=lambda stage: tmp_path)
    given = prompt_rows() if rows is None else rows
    return list(Searcher(searching.job(ctx)).process(searching.rows(given)))


def by_id(rows: list[dict]) -> dict[str, dict]:
    return {row["row_id"]: row for row in rows}


def assert_equal_rows(rows: list[dict], expected: list[dict]) -> None:
    """Compare all columns, sums of floats up to rounding."""
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        sums = {name: pytest.approx(other[name], abs=1e-3) for name in ("implicit_reward", "logprob_post")}
        assert row == other | sums


def all_tokens(row: dict) -> tuple[int, ...]:
    return (*row["response_token_ids"], *([] if row["stop_token_id"] is None else [row["stop_token_id"]]))


class Reference:
    """The search by its definition: one row, one beam, one token at a time, without caches or batches."""

    def __init__(self, models: Path, searching: Search, *, strong: str, pair: tuple[str, str]) -> None:
        self.searching = searching
        self.strong, self.post, self.pre = (
            AutoModelForCausalLM.from_pretrained(models / name).eval() for name in (strong, *pair)
        )
        self.tokenizer, self.weak_tokenizer = (AutoTokenizer.from_pretrained(models / one) for one in (strong, pair[0]))
        self.stops = set(self.strong.generation_config.eos_token_id)
        self.kept: list[list[tuple]] = []
        """Of every round the kept beams, as (tokens, ended, reward)."""

    def response(self, row: dict) -> tuple[tuple[int, ...], str, float]:
        """Tokens with the stop token, why it ended, and the implicit reward."""
        wide, each, self.kept = self.searching.beams, self.searching.expansions, []
        streams = [
            numpy.random.Generator(numpy.random.Philox(key=row_seed(seed=0, prompt_id=row["prompt_id"], sample=place)))
            .random(MOST).tolist()
            for place in range(wide * each)
        ]  # fmt: skip
        beams: list[tuple] = [((), None, 0.0)] * wide
        while any(ended is None for _, ended, _ in beams):
            candidates = [beam for beam in beams if beam[1]]
            for place, (tokens, ended, _) in enumerate(beam for beam in beams for _ in range(each)):
                if ended is None:
                    longer, end = self._chunk(row, tokens, streams[place])
                    candidates.append((longer, end, self._reward(row, longer, end)))
            first = [one for at, one in enumerate(candidates) if one[0] not in [other[0] for other in candidates[:at]]]
            beams = sorted(first, key=lambda one: -one[2])[:wide]
            self.kept.append(beams)
        return beams[0]

    def _chunk(self, row: dict, tokens: tuple, uniforms: list[float]) -> tuple[tuple, str | None]:
        for _ in range(self.searching.chunk or MOST):
            tokens = (*tokens, self._draw(row, tokens, uniforms[len(tokens)]))
            if tokens[-1] in self.stops:
                return tokens, "stop"
            if len(tokens) == MOST:
                return tokens, "length"
        return tokens, None

    def _draw(self, row: dict, tokens: tuple, uniform: float) -> int:
        logits, _ = next_logprobs(self.strong, [*self._prompt(self.tokenizer, row), *tokens])
        scaled = logits / DRAWN.temperature
        allowed = set(scaled.argsort(descending=True)[: DRAWN.top_k].tolist())
        weights = [math.exp(value) if token in allowed else 0.0 for token, value in enumerate(scaled.tolist())]
        target = uniform * math.fsum(weights)
        return next(token for token, upto in enumerate(itertools.accumulate(weights)) if upto > target)

    @torch.no_grad()
    def _reward(self, row: dict, tokens: tuple, end: str | None) -> float:
        """By text alone, or token by token where the weak pair has the same tokens."""
        spoken_tokens = [token for token in tokens if token not in self.stops]
        weak = spoken_tokens
        if self.tokenizer.get_vocab() != self.weak_tokenizer.get_vocab():
            text = self.tokenizer.decode(spoken_tokens, skip_special_tokens=True)
            weak = self.weak_tokenizer(text, add_special_tokens=False).input_ids
        if end == "stop":
            same = weak is spoken_tokens
            weak = [*weak, tokens[-1] if same else self.weak_tokenizer.convert_tokens_to_ids("<end>")]
        prompt = self._prompt(self.weak_tokenizer, row)
        found = []
        for model in (self.post, self.pre):
            logits = model(input_ids=torch.tensor([[*prompt, *weak]])).logits[0].double().log_softmax(-1)
            found.append(sum(logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(weak)))
        return found[0] - found[1]

    @staticmethod
    def _prompt(tokenizer, row: dict) -> list[int]:
        turns = [{"role": "user", "content": row["prompt"]}]
        return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
