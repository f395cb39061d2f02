"""Stages that decode.

responses = ContrastiveGenerate(post=weak_aligned, pre=weak, prompts=prompts, alpha=0.4, max_new_tokens=64)
"""

from cong.generation.proxy import ProxyGenerate
from cong.generation.stages import ContrastiveGenerate, Generate, Sampling

__all__ = ["ContrastiveGenerate", "Generate", "ProxyGenerate", "Sampling"]
