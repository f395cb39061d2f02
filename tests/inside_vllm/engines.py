"""Engines inside vLLM that several tests share: starting one takes seconds, other settings take none."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from reference_decoding import STOP_IDS, reference_greedy, tiny_pair

from cong.decoding import Completion, Decoding, Request
from cong.decoding.inside_vllm.engine import VllmEngine

# The end of an engine ends vLLM's process groups, so all of them live as long as the tests.
_STARTED: list[VllmEngine] = []
ALPHAS = (0.0, 0.3, 0.5, 1.0)
# vLLM's attention on a CPU has heads of 32 and more.
WIDE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 128, "initializer_range": 0.2}


@cache
def pair(family: str, **overrides: Any) -> tuple[Any, Any]:
    return tiny_pair(family, **(WIDE | overrides))


@cache
def directories(family: str, **overrides: Any) -> tuple[Path, Path]:
    root = Path(mkdtemp(prefix="cong-vllm-"))
    for model, name in zip(pair(family, **overrides), ("post", "pre"), strict=True):
        model.save_pretrained(root / name)
    return root / "post", root / "pre"


def start(post: Path, pre: Path | None, *, slots: int = 8, eager: bool = True, **options: Any) -> VllmEngine:
    tensor_parallel = options.pop("tensor_parallel", 1)
    started = VllmEngine(
        post=post,
        pre=pre,
        tokenizer=None,
        decoding=Decoding(max_new_tokens=24),
        slots=slots,
        eager=eager,
        tensor_parallel=tensor_parallel,
        options=options,
    )
    _STARTED.append(started)
    return started


@cache
def engine(family: str, *, slots: int = 8, single: bool = False, **options: Any) -> VllmEngine:
    post, pre = directories(family)
    return start(post, None if single else pre, slots=slots, **options)


def decode(held: VllmEngine, requests: list[Request], **settings: Any) -> dict[str, Completion]:
    given: dict[str, Any] = {"max_new_tokens": 24, **settings}
    held.use(Decoding(**given))
    return {completion.row_id: completion for completion in held.decode(requests)}


def requests_for(prompts: list[tuple[int, ...]]) -> list[Request]:
    """One request per prompt with alphas in turn and ragged limits."""
    return [
        Request(row_id=f"r{i}", prompt_token_ids=prompt, alpha=ALPHAS[i % len(ALPHAS)], max_new_tokens=4 + 7 * i % 21)
        for i, prompt in enumerate(prompts)
    ]


@cache
def expected_row(family: str, prompt: tuple[int, ...], alpha: float, limit: int, penalty: float, scores: str) -> Any:
    post, pre = pair(family)
    return reference_greedy(
        post, pre, prompt, alpha=alpha, max_new_tokens=limit, stop_ids=STOP_IDS, penalty=penalty,
        official=scores == "official",
    )  # fmt: skip


def differing(
    family: str, requests: list[Request], got: dict[str, Completion], *, penalty: float = 1.0, scores: str = "formula"
) -> list[str]:
    """Row ids whose tokens, reason or log-probabilities are not those of the cache-free reference."""
    assert got.keys() == {request.row_id for request in requests}
    return [r.row_id for r in requests if not _equal(got[r.row_id], _expected(family, r, penalty, scores))]


def _expected(family: str, request: Request, penalty: float, scores: str) -> Any:
    assert request.max_new_tokens is not None
    return expected_row(family, request.prompt_token_ids, request.alpha, request.max_new_tokens, penalty, scores)


def _equal(completion: Completion, expected: Any) -> bool:
    tokens, logprob_post, logprob_pre = expected
    stopped = tokens[-1] in STOP_IDS
    return (
        completion.token_ids == tuple(tokens[:-1] if stopped else tokens)
        and completion.finish_reason == ("stop" if stopped else "length")
        and completion.num_tokens == len(tokens)
        and abs(completion.logprob_post - logprob_post) < 1e-4
        and completion.logprob_pre is not None
        and abs(completion.logprob_pre - logprob_pre) < 1e-4
    )
