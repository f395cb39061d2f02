"""The choice of a token inside vLLM: each row's own alpha, the library's own draw, log pi_r and log pi_ref of a token.

vLLM's sampler knows one score per token and draws from generators of its own. This one takes its place in every worker:
it makes F from the logits of both models, applies the penalty and chooses as the other backends do. So a row's text
depends on its seed alone, and both log-probabilities cost two look-ups instead of a second pass. They are fetched when
a row is finished, and seen tokens are kept from step to step: vLLM's own ways for both take a fifth of a step's time.

    llm = LLM(worker_extension_cls="cong.decoding.inside_vllm.sampler.Extension", ...)
    llm.collective_rpc("install_row_sampler", args=(dataclasses.asdict(decoding),))
    llm.collective_rpc("take_logprobs", args=(["row"],))   # of a finished row: log pi_r and log pi_ref of every token
"""

# pyright: reportMissingImports=false
# vLLM is an extra: not everybody who checks the types has it.

from typing import Any

import torch
from torch import Tensor, nn
from vllm.v1.outputs import SamplerOutput
from vllm.v1.sample.metadata import SamplingMetadata

from cong.decoding.choose import choose_tokens, penalize_repetition, row_uniforms
from cong.decoding.inside_vllm.model import scores_of
from cong.decoding.score import log_probs
from cong.decoding.seen import SeenTokens
from cong.decoding.types import Decoding


class Extension:
    """Mixed into vLLM's workers."""

    model_runner: Any

    def install_row_sampler(self, decoding: dict[str, Any]) -> None:
        """Replace the sampler of this worker."""
        sampler = self.model_runner.sampler
        inner = sampler.inner if isinstance(sampler, RowSampler) else sampler
        settings: dict[str, Any] = decoding | {"stop_strings": tuple(decoding["stop_strings"])}
        self.model_runner.sampler = RowSampler(inner, self.model_runner, Decoding(**settings))

    def take_logprobs(self, names: list[str]) -> list[list[list[float]]]:
        """Return what each model gave every token of these rows, and forget the rows."""
        return self.model_runner.sampler.take(names)


class RowSampler(nn.Module):
    """Chooses a token for every row of vLLM's batch; a request's `extra_args`: `name`, `alpha`, `seed` and `drawn`."""

    _runner: Any
    _model: Any

    def __init__(self, inner: Any, runner: Any, decoding: Decoding) -> None:
        super().__init__()
        self.inner, self.decoding = inner, decoding
        # Not submodules of the sampler.
        self.__dict__["_runner"], self.__dict__["_model"] = runner, runner.get_model()
        self._model.deferred = True
        # Fused, the choice takes a quarter of the time with a vocabulary of 150,000 tokens (a CPU, 64 rows).
        compiled = not runner.model_config.enforce_eager
        self._greedy = torch.compile(_choose, dynamic=True) if compiled else _choose
        self._uniforms: dict[str, Tensor] = {}
        self._seen: SeenTokens | None = None
        self._chosen: dict[str, list[list[float]]] = {}

    @property
    def logprobs_mode(self) -> str:
        """What vLLM asks its sampler for."""
        return self.inner.logprobs_mode

    def forward(self, logits: Tensor, sampling_metadata: SamplingMetadata, *args: Any, **kwargs: Any) -> SamplerOutput:
        rows = self._rows(len(logits))
        latest, self._model.latest = self._model.latest, []
        alphas = [state.sampling_params.extra_args["alpha"] for _, state in rows]
        alpha_B = torch.tensor(alphas, dtype=torch.float32, device=logits.device)
        seen_BV = None
        if self.decoding.repetition_penalty != 1:
            seen_BV = self._seen_tokens(rows, width=logits.shape[1], device=logits.device)
        if self.decoding.temperature == 0:
            token_B, chosen_BM = self._greedy(latest, alpha_B, seen_BV, self.decoding)
        else:
            uniform_B = self._uniform(rows, logits.device)
            token_B, chosen_BM = _choose(latest, alpha_B, seen_BV, self.decoding, uniform_B)
        self._keep(rows, chosen_BM)
        return SamplerOutput(sampled_token_ids=token_B.unsqueeze(1).to(torch.int32), logprobs_tensors=None)

    def take(self, names: list[str]) -> list[list[list[float]]]:
        """Return what each model gave every token of these rows, and forget the rows."""
        if self._seen is not None:
            self._seen.forget(names)
        return [self._chosen.pop(name, []) for name in names]

    def _rows(self, count: int) -> list[tuple[str, Any]]:
        """Names and states of the requests in the order of the batch."""
        ids = self._runner.input_batch.req_ids[:count]
        states = [self._runner.requests[request_id] for request_id in ids]
        return [(state.sampling_params.extra_args["name"], state) for state in states]

    def _seen_tokens(self, rows: list[tuple[str, Any]], *, width: int, device: torch.device) -> Tensor:
        if self._seen is None:
            self._seen = SeenTokens(width=width, device=device)
        return self._seen.of([(name, state.prompt_token_ids, state.output_token_ids) for name, state in rows])

    def _keep(self, rows: list[tuple[str, Any]], chosen_BM: Tensor) -> None:
        """Remember what each model gave the chosen tokens."""
        for (name, state), values in zip(rows, chosen_BM.tolist(), strict=True):
            kept = self._chosen.setdefault(name, [])
            # A prompt that is read in parts gives a token after each, of which vLLM takes the last.
            del kept[len(state.output_token_ids) :]
            kept.append(values)

    def _uniform(self, rows: list[tuple[str, Any]], device: torch.device) -> Tensor:
        """The number of its own stream that every row draws with at its step."""
        steps = self.decoding.max_new_tokens
        self._uniforms = {
            name: self._uniforms[name]
            if name in self._uniforms
            else row_uniforms(_extra(state)["seed"], steps, start=_extra(state)["drawn"])
            for name, state in rows
        }
        drawn = [self._uniforms[name][len(state.output_token_ids)] for name, state in rows]
        return torch.stack(drawn).to(device)


def _extra(state: Any) -> dict[str, Any]:
    """What a request carries beside vLLM's own parameters."""
    return state.sampling_params.extra_args


def _choose(
    logits: list[Tensor], alpha_B: Tensor, seen_BV: Tensor | None, decoding: Decoding, uniform_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Tokens (B,), and the log-probability (B, models) that each model gives them."""
    logprobs = [log_probs(logits_BV) for logits_BV in logits]
    scores_BV = scores_of(
        logits, logprobs, alpha=alpha_B, pruning_threshold=decoding.pruning_threshold, scores=decoding.scores
    )
    if seen_BV is not None:
        scores_BV = penalize_repetition(scores_BV, seen_BV=seen_BV, penalty=decoding.repetition_penalty)
    token_B = choose_tokens(scores_BV, decoding=decoding, uniform_B=uniform_B)
    return token_B, torch.cat([logprobs_BV.gather(1, token_B.unsqueeze(1)) for logprobs_BV in logprobs], dim=1)
