"""Contrastive decoding: pure torch and transformers, usable without the rest of the library.

A slot engine for speed, a reference backend on `generate`, the score F, and log-probabilities of given responses:

    post, pre = load_pair(post=post_path, pre=pre_path, dtype="bfloat16", device="cuda")
    engine = SlotEngine(post=post, pre=pre, tokenizer=tokenizer, decoding=Decoding(max_new_tokens=512))
    for completion in engine.decode([Request(row_id="p0", prompt_token_ids=ids, alpha=0.5)]):
        print(tokenizer.decode(completion.token_ids), completion.logprob_post - completion.logprob_pre)
"""

from cong.decoding.dressed import ContrastivePair
from cong.decoding.generate import GenerateEngine
from cong.decoding.logprobs import teacher_forced_logprobs
from cong.decoding.lora import load_pair
from cong.decoding.models import check_pair, load_model
from cong.decoding.score import contrastive_scores, log_probs, proxy_scores
from cong.decoding.slots import SlotEngine
from cong.decoding.types import Completion, Decoding, Request
from cong.models.weights import load_checked

__all__ = [
    "Completion",
    "ContrastivePair",
    "Decoding",
    "GenerateEngine",
    "Request",
    "SlotEngine",
    "check_pair",
    "contrastive_scores",
    "load_checked",
    "load_model",
    "load_pair",
    "log_probs",
    "proxy_scores",
    "teacher_forced_logprobs",
]
