"""Makes the weak pair known to vLLM: the entry point `vllm.general_plugins` of the package.

vLLM calls `register` in each of its processes, also for models that have nothing to do with this library, so nothing
is imported here before it is called.

    vllm.ModelRegistry.get_supported_archs()    # holds "ContrastivePairForCausalLM"
"""

# pyright: reportMissingImports=false
# vLLM is an extra: not everybody who checks the types has it.

ARCHITECTURE = "ContrastivePairForCausalLM"


def register() -> None:
    """Name the model's class without importing it."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(ARCHITECTURE, f"cong.decoding.inside_vllm.model:{ARCHITECTURE}")
