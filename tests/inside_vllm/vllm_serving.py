"""The pair as somebody would give it to vLLM by hand, without the library's engine."""

# pyright: reportMissingImports=false
# vLLM is an extra: not everybody who checks the types has it.

import os
from pathlib import Path
from typing import Any

from cong.decoding.inside_vllm.checks import GUARD
from cong.decoding.inside_vllm.engine import ENVIRONMENT
from cong.decoding.inside_vllm.plugin import ARCHITECTURE, register

_STARTED: list[Any] = []


class HeadDtypes:
    """Mixed into vLLM's workers: what the heads of both models compute in."""

    model_runner: Any

    def head_dtypes(self) -> list[Any]:
        backbones = self.model_runner.get_model().backbones
        return [model.logits_processor.head_dtype for model in (backbones.pi_r, backbones.pi_ref)]


def serve(post: Path, pre: Path, **options: Any) -> Any:
    from vllm import LLM

    _STARTED.append(LLM(**arguments(post, pre, **options)))
    return _STARTED[-1]


def configuration(post: Path, pre: Path, **options: Any) -> Any:
    """What vLLM would hand the model, without starting anything."""
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(**arguments(post, pre, **options)).create_engine_config()


def arguments(post: Path, pre: Path, *, cd_alpha: float = 0.5, **options: Any) -> dict[str, Any]:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    register()
    overrides = {"architectures": [ARCHITECTURE], "cd_ref": str(pre), "cd_alpha": cd_alpha}
    usual: dict[str, Any] = {
        "model": str(post),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "dtype": "float32",
        "max_model_len": 128,
        "block_size": 32,
        "kv_cache_memory_bytes": 1 << 26,
        "enforce_eager": True,
        "logits_processors": [GUARD],
        "worker_extension_cls": "vllm_serving.HeadDtypes",
        "distributed_executor_backend": "uni",
    }
    return usual | options | {"hf_overrides": overrides | options.get("hf_overrides", {})}
