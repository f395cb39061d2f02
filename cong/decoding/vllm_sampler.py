"""The choice of a token inside vLLM: each row's own alpha, the library's own draw, log pi_r and log pi_ref of a token.

vLLM's sampler knows one score per token and draws from generators of its own. This one takes its place in every worker:
it makes F from the logits of both models, leaves the repetition penalty to vLLM, and chooses as the other backends do.
So a row's text depends on its seed alone, and both log-probabilities cost two look-ups instead of a second pass.

    llm = LLM(worker_extension_cls="cong.decoding.vllm_sampler.Extension", ...)
    llm.collective_rpc("install_row_sampler", args=(dataclasses.asdict(decoding),))
"""

# pyright: reportMissingImports=false
# vLLM is an extra: not everybody who checks the types has it.

from typing import Any

import torch
from torch import Tensor, nn
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.metadata import SamplingMetadata

from cong.decoding.choose import choose_tokens, row_uniforms
from cong.decoding.score import log_probs
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


class RowSampler(nn.Module):
    """Chooses a token for every row of vLLM's batch; `extra_args` of a request hold its `alpha` and `seed`."""

    _runner: Any
    _model: Any

    def __init__(self, inner: Any, runner: Any, decoding: Decoding) -> None:
        super().__init__()
        self.inner, self.decoding = inner, decoding
        # Not submodules of the sampler.
        self.__dict__["_runner"], self.__dict__["_model"] = runner, runner.get_model()
        self._model.deferred = True
        self._model.pruning_threshold, self._model.scores = decoding.pruning_threshold, decoding.scores
        self._uniforms: dict[str, Tensor] = {}

    @property
    def logprobs_mode(self) -> str:
        """What vLLM asks its sampler for."""
        return self.inner.logprobs_mode

    def forward(self, logits: Tensor, sampling_metadata: SamplingMetadata, *args: Any, **kwargs: Any) -> SamplerOutput:
        rows = self._rows(len(logits))
        latest, self._model.latest = self._model.latest, []
        logprobs = [log_probs(logits_BV) for logits_BV in latest]
        alphas = [float(state.sampling_params.extra_args["alpha"]) for _, state in rows]
        alpha_B = torch.tensor(alphas, device=logits.device)
        scores_BV = self._model.scores_of(latest, logprobs, alpha=alpha_B)
        scores_BV = self.inner.apply_logits_processors(scores_BV, sampling_metadata, False)
        token_B = choose_tokens(scores_BV, decoding=self.decoding, uniform_B=self._uniform(rows, logits.device))
        return _output(token_B, logprobs)

    def _rows(self, count: int) -> list[tuple[str, Any]]:
        """Ids and states of the requests in the order of the batch."""
        ids = self._runner.input_batch.req_ids[:count]
        return [(request_id, self._runner.requests[request_id]) for request_id in ids]

    def _uniform(self, rows: list[tuple[str, Any]], device: torch.device) -> Tensor | None:
        """The number of its own stream that every row draws with at its step."""
        if self.decoding.temperature == 0:
            return None
        steps = self.decoding.max_new_tokens
        self._uniforms = {
            name: self._uniforms[name]
            if name in self._uniforms
            else row_uniforms(state.sampling_params.extra_args["seed"], steps)
            for name, state in rows
        }
        drawn = [self._uniforms[name][len(state.output_token_ids)] for name, state in rows]
        return torch.stack(drawn).to(device)


def _output(token_B: Tensor, logprobs: list[Tensor]) -> SamplerOutput:
    """Tokens and, in the places of a token and its runner-up, what each model gives the chosen token."""
    token_B1 = token_B.unsqueeze(1)
    chosen_BM = torch.cat([logprobs_BV.gather(1, token_B1) for logprobs_BV in logprobs], dim=1)
    ids_BM = token_B1.expand_as(chosen_BM).to(torch.int32)
    return SamplerOutput(
        sampled_token_ids=token_B1.to(torch.int32),
        logprobs_tensors=LogprobsTensors(ids_BM, chosen_BM, torch.ones_like(token_B)),
    )
