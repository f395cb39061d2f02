"""Chat templates have one date, and a tokenizer that knows no text is refused, for prompts and training rows alike."""

import datetime
import json

import pytest
import spoken
from transformers.utils import chat_template_utils

from cong.data import chat_prompt_ids
from cong.errors import UserError
from cong.models import ASKING_FOR_DATE, HubModel, LocalModel
from cong.models.chat import CHAT_DATE, asks_for_date, encode_chat, load_tokenizer
from cong.training.rows import completion_rows, preference_rows

LLAMA = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}"
    "{%- endif %}{%- endif %}<turn>system\nToday Date: {{ date_string }}<end>\n"
)
TEMPLATES = {
    "date_string": LLAMA + spoken.TEMPLATE,
    "a line of its own": spoken.DATED,
    "weekday": "{{ strftime_now('%A, %B %d') }} " + spoken.TEMPLATE,
}


@pytest.fixture(params=[(2026, 11, 27), (2031, 3, 2)], ids=str)
def another_day(request, monkeypatch):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            year, month, day = request.param
            return cls(year, month, day, 9)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.usefixtures("another_day")
def test_every_day_is_the_same_day(name):
    tokenizer = spoken.byte_tokenizer(template=TEMPLATES[name])
    told = {"date_string": "26 Jul 2024", "a line of its own": "2024-07-26", "weekday": "Friday, July 26"}[name]
    assert CHAT_DATE == "2024-07-26"
    assert told in tokenizer.decode(list(chat_prompt_ids(tokenizer, "hello")))
    row = {"prompt_id": "a", "prompt": "hello", "response": "x", "chosen": "yes", "rejected": "no"}
    trained = completion_rows(tokenizer, [row], max_length=300).columns["input_ids"][0]
    assert told in tokenizer.decode(trained)
    assert tuple(trained[: len(chat_prompt_ids(tokenizer, "hello"))]) == chat_prompt_ids(tokenizer, "hello")
    assert told in tokenizer.decode(preference_rows(tokenizer, [row], max_length=300).columns["prompt_ids"][0])


def test_the_date_is_part_of_the_identity_where_a_template_asks_for_one(tmp_path):
    plain, dated = (
        LocalModel(path=str(spoken.checkpoint(tmp_path / name, tokenizer=spoken.byte_tokenizer(template=template))))
        for name, template in (("plain", spoken.TEMPLATE), ("dated", spoken.DATED))
    )
    assert "chat_date" not in plain.identity()
    assert dated.identity()["chat_date"] == CHAT_DATE
    hub = [HubModel(repo=repo, revision="a" * 40).identity() for repo in (ASKING_FOR_DATE[0], "Qwen/Qwen2.5-3B")]
    assert [one.get("chat_date") for one in hub] == [CHAT_DATE, None]


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json", "additional_chat_templates/a.jinja"])
def test_a_template_is_found_wherever_a_checkpoint_keeps_it(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(json.dumps({"chat_template": spoken.TEMPLATE}))
    assert not asks_for_date(tmp_path)
    (tmp_path / place).write_text(json.dumps({"chat_template": spoken.DATED}))
    assert asks_for_date(tmp_path)


def test_neither_prompts_nor_responses_are_stripped():
    tokenizer = spoken.byte_tokenizer()
    row = {"prompt_id": "a", "prompt": " hello \n", "response": "  two\n\n"}
    assert "<turn>user\n hello \n<end>" in tokenizer.decode(list(chat_prompt_ids(tokenizer, row["prompt"])))
    rows = completion_rows(tokenizer, [row], max_length=300).columns
    trained = [token for token, label in zip(rows["input_ids"][0], rows["labels"][0], strict=True) if label != -100]
    assert tokenizer.decode(trained) == "  two\n\n<end>\n"


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_a_checkpoint_whose_vocabulary_is_missing_has_no_tokenizer(tmp_path, family):
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64} if family == "gpt2" else {}
    spoken.checkpoint(tmp_path, family=family, **sizes)
    assert len(load_tokenizer(tmp_path)) >= 100
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"the tokenizer (is empty|cannot be loaded)") as refusal:
        load_tokenizer(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", ["{", "version https://git-lfs.github.com/spec/v1\n", "{}", '{"version": "1.0"}'])
def test_half_a_tokenizer_is_refused_in_one_line(tmp_path, content):
    spoken.checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="the tokenizer") as refusal:
        load_tokenizer(tmp_path)
    assert "\n" not in str(refusal.value)


def test_training_rows_are_not_made_with_an_empty_tokenizer(tmp_path):
    from transformers import AutoTokenizer

    spoken.checkpoint(tmp_path, family="qwen2")
    (tmp_path / "tokenizer.json").unlink()
    row = {"prompt_id": "a", "prompt": "hello", "response": "x"}
    with pytest.raises(UserError, match="the tokenizer is empty"):
        completion_rows(AutoTokenizer.from_pretrained(tmp_path), [row], max_length=300)


def test_a_conversation_has_the_same_tokens_alone_and_among_others():
    tokenizer = spoken.byte_tokenizer()
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = completion_rows(tokenizer, [{"prompt_id": "p", "prompt": "a", "response": "b"}], max_length=99)
    assert tuple(rows.columns["input_ids"][0]) == encode_chat(tokenizer, turns, open_turn=False)
