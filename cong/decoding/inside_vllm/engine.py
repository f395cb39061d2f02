"""The engine inside vLLM: `decode` as the slot engine has it, for a weak pair or a single model.

vLLM schedules, batches and caches; score, choice and log-probabilities are the library's own. The engine runs in the
calling process (with tensor parallelism, its workers in processes of their own), so it ends when the caller is killed.

    engine = VllmEngine(post=post_path, pre=pre_path, tokenizer=tokenizer, decoding=Decoding(max_new_tokens=512))
    for completion in engine.decode([Request(row_id="p0", prompt_token_ids=ids, alpha=0.5)]):
        print(completion.logprob_post - completion.logprob_pre)
"""

# pyright: reportMissingImports=false
# vLLM is an extra: not everybody who checks the types has it.

import dataclasses
import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from cong.decoding.inside_vllm.checks import GUARD
from cong.decoding.inside_vllm.plugin import ARCHITECTURE, register
from cong.decoding.inside_vllm.weights import check_weights
from cong.decoding.models import common_max_context, common_rope_end, common_vocab_size, end_token_ids
from cong.decoding.sizing import architecture
from cong.decoding.types import (
    Completion,
    Decoding,
    Request,
    error_completion,
    finished_completion,
    request_error,
    token_limit,
)
from cong.models.memory import CPU_SLOTS

CPU_BLOCK = 32
ENVIRONMENT = {
    # In this process: errors arrive as they are, and no process is left over when this one is killed.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # The second generation of the runner has no place for a sampler of one's own.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    # Several actors on a node would otherwise bind their threads to the same cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class VllmEngine:
    """Decodes a stream of requests; a drop-in for the slot engine, built from directories instead of loaded models.

    One at a time in a process: the end of an engine also ends the process groups that vLLM holds for the whole process.
    `slots` is how many rows vLLM advances together. `eager` runs without compilation and CUDA graphs. `options` go to
    vLLM as they are (`max_num_batched_tokens`, `gpu_memory_utilization`, ...).
    """

    def __init__(
        self,
        *,
        post: str | Path,
        pre: str | Path | None = None,
        tokenizer: PreTrainedTokenizerBase | None,
        decoding: Decoding,
        slots: int | None = None,
        max_context: int | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        tensor_parallel: int = 1,
        eager: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        _check_decoding(decoding)
        paths = [str(path) for path in (post, pre) if path is not None]
        for path in paths:
            check_weights(path)
        configs = [AutoConfig.from_pretrained(path) for path in paths]
        self.vocab_size = common_vocab_size(*configs)
        self.max_context = max_context or common_max_context(*configs)
        self._rope_end = common_rope_end(*configs)
        self.pair = pre is not None
        self.slots = slots or CPU_SLOTS
        self.stop_token_ids = end_token_ids(_generation_settings(paths[0]), tokenizer)
        self.decoded_tokens = 0
        """New tokens since the engine was built, counted when a row ends: vLLM says nothing of a row before."""
        self._names = count()
        arguments = self._arguments(paths, dtype=dtype, tensor_parallel=tensor_parallel, eager=eager)
        if device == "cpu":
            arguments |= self._cpu_arguments(configs, dtype=dtype)
        self.llm = _start(arguments | dict(options or {}))
        self.use(decoding)

    def use(self, decoding: Decoding) -> None:
        """Decode with other settings from here on, without loading anything again."""
        _check_decoding(decoding)
        self.decoding = decoding
        self.llm.collective_rpc("install_row_sampler", args=(dataclasses.asdict(decoding),))

    def _arguments(self, paths: list[str], *, dtype: str, tensor_parallel: int, eager: bool) -> dict[str, Any]:
        return {
            "model": paths[0],
            "hf_overrides": {"architectures": [ARCHITECTURE], "cd_ref": paths[1] if self.pair else None},
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "load_format": "safetensors",
            "use_tqdm_on_load": False,
            "dtype": dtype,
            "max_model_len": self.max_context,
            "max_num_seqs": self.slots,
            "tensor_parallel_size": tensor_parallel,
            "distributed_executor_backend": "mp" if tensor_parallel > 1 else "uni",
            "enforce_eager": eager,
            # A row's step is read off its tokens, which must be there when the next one is chosen.
            "async_scheduling": False,
            "logits_processors": [GUARD],
            "worker_extension_cls": "cong.decoding.inside_vllm.sampler.Extension",
        }

    def _cpu_arguments(self, configs: list[Any], *, dtype: str) -> dict[str, Any]:
        """A cache for all slots at full length, or half of what memory is free: rows that lack room are preempted."""
        import psutil

        itemsize = 4 if dtype == "float32" else 2
        token_bytes = sum(architecture(config).cache_bytes_per_token(itemsize=itemsize) for config in configs)
        row_bytes = token_bytes * (-(-self.max_context // CPU_BLOCK) + 1) * CPU_BLOCK
        wanted = min(self.slots * row_bytes, psutil.virtual_memory().available // 2)
        return {"block_size": CPU_BLOCK, "kv_cache_memory_bytes": max(wanted, 2 * row_bytes)}

    def decode(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions in the order in which rows finish; a request that cannot be decoded comes back as an error."""
        source, running = iter(requests), dict[str, Request]()
        engine = self.llm.llm_engine
        try:
            while True:
                yield from self._admit(source, running)
                if not running:
                    return
                finished = {output.request_id: output.outputs[0] for output in engine.step() if output.finished}
                self.decoded_tokens += sum(len(output.token_ids) for output in finished.values())
                logprobs = self._take_logprobs(list(finished))
                for (name, output), values in zip(finished.items(), logprobs, strict=True):
                    yield self._completion(running.pop(name), output, values)
        finally:
            # An abandoned stream leaves nothing behind in the engine.
            if running:
                engine.abort_request(list(running))
                self._take_logprobs(list(running))

    def _take_logprobs(self, names: list[str]) -> list[list[list[float]]]:
        """What each model gave every token of these rows; all workers know the same."""
        return self.llm.collective_rpc("take_logprobs", args=(names,))[0] if names else []

    def _admit(self, source: Iterator[Request], running: dict[str, Request]) -> Iterator[Completion]:
        """Keep vLLM's queue filled, without holding a long stream in memory."""
        while len(running) < 2 * self.slots and (request := next(source, None)) is not None:
            error = request_error(
                request,
                decoding=self.decoding,
                vocab_size=self.vocab_size,
                max_context=self.max_context,
                pair=self.pair,
            )
            if error is not None:
                yield error_completion(request, error)
                continue
            name = str(next(self._names))
            running[name] = request
            prompt = {"prompt_token_ids": list(request.prompt_token_ids)}
            self.llm.llm_engine.add_request(name, prompt, self._parameters(request, name=name))

    def _parameters(self, request: Request, *, name: str) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=0.0,
            max_tokens=token_limit(request, decoding=self.decoding, max_context=self.max_context),
            stop_token_ids=sorted(self.stop_token_ids),
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args={"name": name, "alpha": float(request.alpha), "seed": request.seed, "drawn": request.drawn},
        )

    def _completion(self, request: Request, output: Any, logprobs: list[list[float]]) -> Completion:
        sums = [sum(values) for values in zip(*logprobs, strict=True)]
        return finished_completion(
            request,
            tokens=list(output.token_ids),
            stop_token_ids=self.stop_token_ids,
            stopped_by_string=False,
            logprob_post=sums[0],
            logprob_pre=sums[1] if self.pair else None,
            decoding=self.decoding,
            rope_end=self._rope_end,
        )


def _check_decoding(decoding: Decoding) -> None:
    if decoding.stop_strings:
        raise ValueError(f"stop_strings are {decoding.stop_strings!r}; inside vLLM rows end at tokens only")


def _start(arguments: dict[str, Any]) -> Any:
    import torch

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # An engine that is gone, but not yet collected, would take the new one's process groups with it.
    gc.unfreeze()
    gc.collect()
    set_num_threads = torch.set_num_threads
    try:
        from vllm import LLM

        register()
        return LLM(**arguments, disable_log_stats=True)
    finally:
        # vLLM's worker on a CPU puts a function in its place that does nothing, for the whole process.
        torch.set_num_threads = set_num_threads


def _generation_settings(path: str) -> Any:
    """The checkpoint's own generation config, or its configuration where it has none."""
    if (Path(path) / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(path)
    return AutoConfig.from_pretrained(path)
