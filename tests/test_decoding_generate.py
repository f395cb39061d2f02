"""The reference backend on `generate`, teacher-forced log-probabilities, and stop strings in both backends."""

import pytest
import torch
from reference_decoding import STOP_IDS, next_logprobs, ragged_prompts, reference_greedy, tiny_pair
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from cong.decoding import ContrastivePair, Decoding, GenerateEngine, Request, SlotEngine, teacher_forced_logprobs

ALPHAS = (0.0, 0.3, 0.5, 1.0)


def word_tokenizer():
    """A tokenizer whose token i is the word w<i>, joined by spaces."""
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w3")


def requests_for(count, *, seed=0):
    return [
        Request(row_id=f"r{i}", prompt_token_ids=prompt, alpha=ALPHAS[i % 4], seed=i, max_new_tokens=4 + i)
        for i, prompt in enumerate(ragged_prompts(count, seed=seed))
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("scores", ["formula", "official"])
@pytest.mark.parametrize("penalty", [1.0, 1.2])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_the_pair_in_generate_equals_the_cache_free_reference(family, penalty, scores, batch_size):
    post, pre = tiny_pair(family)
    requests = requests_for(9)
    decoding = Decoding(max_new_tokens=24, repetition_penalty=penalty, scores=scores)
    engine = GenerateEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, batch_size=batch_size)
    for request, completion in zip(requests, engine.decode(requests), strict=True):
        tokens, logprob_post, logprob_pre = reference_greedy(
            post,
            pre,
            request.prompt_token_ids,
            alpha=request.alpha,
            max_new_tokens=request.max_new_tokens,
            stop_ids=STOP_IDS,
            penalty=penalty,
            official=scores == "official",
        )
        assert completion.token_ids == tuple(tokens[:-1] if tokens[-1] in STOP_IDS else tokens)
        assert completion.num_tokens == len(tokens)
        assert completion.logprob_post == pytest.approx(logprob_post, abs=1e-4)
        assert completion.logprob_pre == pytest.approx(logprob_pre, abs=1e-4)


@pytest.mark.parametrize("pair", [True, False])
def test_both_backends_sample_the_same_tokens(pair):
    post, pre = tiny_pair("qwen2")
    requests = requests_for(10, seed=3)
    decoding = Decoding(max_new_tokens=24, temperature=0.9, top_p=0.9, min_p=0.02, repetition_penalty=1.1)
    models = {"post": post, "pre": pre if pair else None, "tokenizer": None, "decoding": decoding}
    slots = {c.row_id: c for c in SlotEngine(**models, slots=4).decode(requests)}
    for completion in GenerateEngine(**models, batch_size=4).decode(requests):
        other = slots[completion.row_id]
        assert completion.token_ids == other.token_ids
        assert completion.finish_reason == other.finish_reason
        assert completion.logprob_post == pytest.approx(other.logprob_post, abs=1e-4)


def test_a_checkpoint_that_samples_by_default_is_decoded_greedily():
    post, _ = tiny_pair("llama")
    requests = requests_for(4)
    decoding = Decoding(max_new_tokens=12)
    plain = [list(GenerateEngine(post=post, tokenizer=None, decoding=decoding).decode(requests))]
    post.generation_config.update(do_sample=True, temperature=3.0, repetition_penalty=2.0, top_k=50)
    plain.append(list(GenerateEngine(post=post, tokenizer=None, decoding=decoding).decode(requests)))
    assert plain[0] == plain[1]
    assert post.generation_config.do_sample


def test_bad_requests_are_named_and_the_others_go_on():
    post, pre = tiny_pair("qwen2")
    requests = [Request(row_id="bad", prompt_token_ids=()), Request(row_id="good", prompt_token_ids=(20, 21))]
    engine = GenerateEngine(post=post, pre=pre, tokenizer=None, decoding=Decoding(max_new_tokens=3))
    completions = {completion.row_id: completion for completion in engine.decode(requests)}
    assert completions["bad"].finish_reason == "error"
    assert completions["good"].finish_reason in ("stop", "length")


def test_the_pair_gives_the_scores_of_every_position():
    post, pre = tiny_pair("qwen2")
    pair = ContrastivePair(post=post, pre=pre, alpha=1.0, pruning_threshold=0.1)
    logits = pair(input_ids=torch.tensor([[20, 30, 40]])).logits
    for length in (1, 2, 3):
        _, logprobs = next_logprobs(post, [20, 30, 40][:length])
        assert logits[0, length - 1].argmax() == logprobs.argmax()
        assert logits[0, length - 1].max() == pytest.approx(logprobs.max().item(), abs=1e-4)


@pytest.mark.parametrize("steps_per_sync", [1, 5])
def test_a_stop_string_ends_a_row_at_the_token_that_completes_it(steps_per_sync):
    post, pre = tiny_pair("qwen2")
    tokenizer = word_tokenizer()

    def text_of(tokens):
        return str(tokenizer.decode(list(tokens)))

    requests = [Request(row_id=f"r{i}", prompt_token_ids=p, alpha=0.5) for i, p in enumerate(ragged_prompts(12))]
    models = {"post": post, "pre": pre, "tokenizer": tokenizer}
    free = {c.row_id: c for c in SlotEngine(**models, decoding=Decoding(max_new_tokens=20)).decode(requests)}
    target = free["r0"].token_ids[3:5]
    string = text_of(target)
    decoding = Decoding(max_new_tokens=20, stop_strings=(string, "never"))
    slots = SlotEngine(**models, decoding=decoding, slots=5, steps_per_sync=steps_per_sync)
    ended = 0
    for completion in slots.decode(requests):
        tokens, whole = completion.token_ids, free[completion.row_id].token_ids
        assert tokens == whole[: len(tokens)]
        if string in text_of(whole):
            ended += 1
            assert completion.finish_reason == "stop"
            assert completion.num_tokens == len(tokens)
            assert text_of(tokens).endswith(string)
            assert string not in text_of(tokens[:-1])
            sums = teacher_forced_logprobs(
                post,
                prompts=[requests[int(completion.row_id[1:])].prompt_token_ids],
                completions=[tokens],
                batch_size=1,
            )
            assert completion.logprob_post == pytest.approx(sums[0], abs=1e-4)
    assert ended >= 1
    reference = GenerateEngine(**models, decoding=decoding, batch_size=6).decode(requests)
    expected = {completion.row_id: completion.token_ids for completion in reference}
    assert {completion.row_id: completion.token_ids for completion in slots.decode(requests)} == expected


def test_stop_strings_need_a_tokenizer():
    post, _ = tiny_pair("qwen2")
    with pytest.raises(ValueError, match="tokenizer"):
        SlotEngine(post=post, tokenizer=None, decoding=Decoding(max_new_tokens=4, stop_strings=("x",)))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_teacher_forced_sums_equal_a_token_by_token_loop(batch_size):
    post, _ = tiny_pair("llama")
    prompts, completions = ragged_prompts(7, seed=5), [*ragged_prompts(6, seed=6), ()]
    sums = teacher_forced_logprobs(
        post, prompts=prompts, completions=completions, batch_size=batch_size, stop_token_id=3
    )
    for prompt, completion, value in zip(prompts, completions, sums, strict=True):
        tokens, expected = list(prompt), 0.0
        for token in (*completion, 3):
            expected += next_logprobs(post, tokens)[1][token].item()
            tokens.append(token)
        assert value == pytest.approx(expected, abs=1e-4)
