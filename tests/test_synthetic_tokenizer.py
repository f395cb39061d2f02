"""The tiny families' tokenizers behave like those of real checkpoints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cong.synthetic.code_world import CodeWorld
from cong.synthetic.math_world import MathWorld
from cong.synthetic.models import build_config
from cong.synthetic.tokenizer import STYLES, Family, build_tokenizer
from cong.synthetic.world import World, make_documents

WORLD = World()
FAMILIES: list[Family] = ["llama", "qwen"]
QWEN_PROMPT = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
LLAMA_PROMPT = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    made: dict[Family, Path] = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, directory in made.items():
        build_tokenizer(WORLD, family=family, directory=directory)
    return made


@pytest.fixture(scope="module")
def tokenizers(directories):
    return {family: AutoTokenizer.from_pretrained(str(directory)) for family, directory in directories.items()}


def chat(document):
    return [{"role": "user", "content": document.prompt}, {"role": "assistant", "content": document.response}]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_survive_a_round_trip(tokenizers, family):
    tokenizer = tokenizers[family]
    texts = [d.response for d in make_documents(WORLD, count=200, seed=9)] + ["Ünseen wörds: 12,5 € 🦜\n\n ok", "a  b"]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("domain", [WORLD, MathWorld(), CodeWorld()], ids=["chat", "math", "code"])
def test_a_text_is_cut_alike_before_pretraining_and_beside_the_pretrained_model(domain, family, tmp_path):
    build_tokenizer(domain, family=family, directory=tmp_path)
    alone = AutoTokenizer.from_pretrained(tmp_path)
    build_config(family, "1.5B", alone).save_pretrained(tmp_path)
    # A `config.json` decides about the class of the tokenizer beside it, and the class may bring a pattern of its own.
    beside = AutoTokenizer.from_pretrained(tmp_path)
    documents = make_documents(domain, count=200, seed=9)
    texts = [text for d in documents for text in (d.prompt, d.response, f"{d.prompt}\n{d.response}\n\n")]
    assert [beside.encode(text) for text in texts] == [alone.encode(text) for text in texts]


@pytest.mark.parametrize(("family", "expected"), [("qwen", QWEN_PROMPT), ("llama", LLAMA_PROMPT)])
def test_the_chat_format_is_that_of_the_family(tokenizers, family, expected):
    messages = [{"role": "user", "content": "hello"}]
    assert tokenizers[family].apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_chat_begins_with_its_generation_prompt_and_ends_its_answer_with_eos(tokenizers, family):
    tokenizer = tokenizers[family]
    for document in make_documents(WORLD, count=50, seed=8):
        messages = chat(document)
        whole = tokenizer.apply_chat_template(messages, return_dict=False)
        asked = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
        assert whole[: len(asked)] == asked
        answer = whole[len(asked) :]
        assert answer.count(tokenizer.eos_token_id) == 1
        assert tokenizer.decode(answer[: answer.index(tokenizer.eos_token_id)]) == document.response


def test_only_the_llama_family_begins_texts_with_a_special_token(tokenizers):
    assert tokenizers["qwen"].bos_token is None
    assert tokenizers["llama"].encode("hello")[0] == tokenizers["llama"].bos_token_id
    assert tokenizers["llama"].bos_token_id not in tokenizers["llama"].encode("hello", add_special_tokens=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_are_distinct_and_never_come_from_plain_text(tokenizers, family):
    tokenizer = tokenizers[family]
    special = tokenizer.all_special_ids
    assert len(set(special)) == len(special) == len(STYLES[family].named)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer) == STYLES[family].vocabulary
    assert not set(special) & set(tokenizer.encode("user name two ; <im_end>", add_special_tokens=False))


def test_the_families_cut_the_same_text_differently(tokenizers):
    texts = [d.response for d in make_documents(WORLD, count=50, seed=7)]
    cuts = [[tokenizers[family].tokenize(text) for text in texts] for family in FAMILIES]
    assert cuts[0] != cuts[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_another_process_with_other_threads_trains_the_same_tokenizer(directories, tmp_path, family):
    code = "import sys; from cong.synthetic.tokenizer import build_tokenizer; from cong.synthetic.world import World\n"
    code += "build_tokenizer(World(), family=sys.argv[1], directory=sys.argv[2])"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3", "TOKENIZERS_PARALLELISM": "true"}
    subprocess.run([sys.executable, "-c", code, family, str(tmp_path)], env=environment, check=True)
    files = {file.name: file.read_bytes() for file in directories[family].iterdir()}
    assert "tokenizer.json" in files
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files
