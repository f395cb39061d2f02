"""The environment in which stages run: of the shell's variables they see those that are listed here, and no others.

What the shell holds is not what was asked for: with the variables of another launcher (torchrun, accelerate, Slurm,
MPI, a pod's) a plain training would wait for peers, take another precision or another device, and its record would not
say so. How a stage is executed is the profile's alone. A Ray that is started on this machine gets the same environment,
and its workers with it; Ray Train adds what makes its workers a group.

Let through are, by name or by the beginning of the name:

- where things are: PATH, HOME, the user's name, locale and time zone, temporary directories, XDG_, Python's own,
  conda's, the linker's and compilers' (LD_, CC, CXX), those of CUDA and the devices that may be seen
- how machines talk: proxies and certificates, NCCL_, GLOO_, UCX_, FI_, GRPC_
- how many threads a library takes (OMP_, MKL_, OPENBLAS_), caches of compiled kernels, the allocator of the GPU
- services with their keys: HF_, AWS_, GOOGLE_, AZURE_, FSSPEC_, MLFLOW_, OPENAI_
- this project's own (CONG_), and Ray's (RAY_) but for what would lead it to another cluster

Whatever else stages of one's own read is named in the profile: `let_through = ["MY_DATA", "MY_SERVICE_*"]`.
"""

import contextlib
import os
from collections.abc import Generator, Mapping

LET_THROUGH = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "HOSTNAME", "PWD", "TERM", "COLUMNS", "LANG", "LANGUAGE", "LC_*", "TZ",
    "TMPDIR", "TMP", "TEMP", "XDG_*", "PYTHON*", "VIRTUAL_ENV", "CONDA_*", "LD_*", "LIBRARY_PATH", "CPATH", "CC", "CXX",
    "CUDA_*", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NCCL_*", "GLOO_*", "UCX_*", "FI_*",
    "GRPC_*", "OMP_*", "MKL_*", "OPENBLAS_*", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR",
    "TORCH_HOME", "TORCH_CUDA_ARCH_LIST", "MAX_JOBS", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
    "VLLM_CACHE_ROOT", "HF_*", "HUGGING_FACE_HUB_TOKEN", "TRANSFORMERS_OFFLINE", "TRANSFORMERS_VERBOSITY",
    "TOKENIZERS_PARALLELISM", "AWS_*", "GOOGLE_*", "AZURE_*", "FSSPEC_*", "MLFLOW_*", "OPENAI_*", "DO_NOT_TRACK",
    "TUNE_*", "CONG_*", "RAY_*",
)  # fmt: skip
ELSEWHERE = ("RAY_ADDRESS", "RAY_NAMESPACE", "RAY_CLIENT_MODE", "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RUNTIME_ENV_HOOK")
"""Ray's variables that lead to another cluster, or into another job."""
GROUP = (
    "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "NODE_RANK",
    "ACCELERATE_TORCH_DEVICE", "DS_ACCELERATOR",
)  # fmt: skip
"""What Ray Train sets in each of its workers, so that they are one group on their own devices."""


def let_through(variables: Mapping[str, str], *, further: tuple[str, ...] = ()) -> dict[str, str]:
    """Return those of the variables that a stage sees; `further` are names, or beginnings of names that end in `*`."""
    allowed = (*LET_THROUGH, *further)
    names = {pattern for pattern in allowed if not pattern.endswith("*")} - set(ELSEWHERE)
    beginnings = tuple(pattern[:-1] for pattern in allowed if pattern.endswith("*"))
    return {
        name: value
        for name, value in variables.items()
        if name in names or (name.startswith(beginnings) and name not in ELSEWHERE)
    }


@contextlib.contextmanager
def stage_environment(*, further: tuple[str, ...] = ()) -> Generator[None]:
    """Leave in the environment of this process what a stage sees, and bring back what was there at the end.

    So one stage's libraries, which set variables of their own, do not decide about the next one either.
    """
    before = dict(os.environ)
    _become(let_through(before, further=further))
    try:
        yield
    finally:
        _become(before)


def _become(variables: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)
