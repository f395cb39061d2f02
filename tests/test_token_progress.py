"""Decoding shows its tokens before the first rows are finished: in the progress, on the terminal and in the curves."""

from functools import partial
from typing import Any

import pytest
from reference_decoding import ragged_prompts, tiny_pair
from toy import INLINE, Number, Waiting, awaited

from cong.data.map_rows import map_rows
from cong.decoding import Decoding, GenerateEngine, Request, SlotEngine
from cong.graph.journal import Progress, read_metrics, read_progress, write_progress
from cong.graph.stage import Context
from cong.run import terminal
from cong.run.terminal import Terminal, describe_progress


@pytest.fixture
def ctx(tmp_path):
    return Context(out=tmp_path, root=tmp_path, resources=INLINE, locate=lambda stage: tmp_path)


def rows(count):
    return [{"row_id": str(number)} for number in range(count)]


class Scorer:
    """Scores responses that have tokens, and decodes none."""

    def __init__(self, progress):
        self.progress = progress

    def process(self, rows):
        shown = awaited(self.progress, tokens=None)
        yield from ({**row, "num_tokens": 10, "error": None, "shown": vars(shown)} for row in rows)


class Lagging:
    """Its count is behind its rows."""

    decoded_tokens = 0

    def process(self, rows):
        yield from ({**row, "num_tokens": 10, "error": None} for row in rows)


class Dying:
    """Finishes 64 rows of 10 tokens and dies with 300 more tokens decoded."""

    decoded_tokens = 0

    def process(self, rows):
        for row in rows[:64]:
            self.decoded_tokens += 10
            yield {**row, "num_tokens": 10, "error": None, "shown": None}
        self.decoded_tokens += 300
        raise RuntimeError("killed")


def test_tokens_of_unfinished_rows_are_shown(ctx):
    make = partial(Waiting, ctx.progress_path, ((700, 700), (1900, 1900)))
    found = map_rows(ctx, make, rows(3), max_error_share=0.0)
    shown = Progress(**found[0]["shown"])
    assert (shown.done, shown.total, shown.tokens) == (0, 3, 1900)
    assert shown.token_rate > 0
    assert shown.seconds_left is None
    assert describe_progress(shown).startswith("1,900 tokens, ")
    assert describe_progress(shown).endswith(" tok/s, 0 of 3 rows (0 %)")


def test_a_resumed_stage_shows_what_was_finished_and_counts_none_of_it_into_its_speed(ctx):
    with pytest.raises(RuntimeError, match="killed"):
        map_rows(ctx, Dying, rows(80), max_error_share=0.0)
    ctx.progress_path.unlink()
    make = partial(Waiting, ctx.progress_path, ((0, 640), (50, 690)))
    shown = Progress(**map_rows(ctx, make, rows(80), max_error_share=0.0)[-1]["shown"])
    assert (shown.done, shown.tokens, shown.finished_tokens) == (64, 690, 640)
    assert shown.token_rate * (shown.updated - shown.started) == pytest.approx(50)
    assert shown.seconds_left == pytest.approx(16 * 10 / shown.token_rate)


def test_a_stage_that_decodes_nothing_shows_rows(ctx):
    found = map_rows(ctx, partial(Scorer, ctx.progress_path), rows(3), max_error_share=0.0)
    assert describe_progress(Progress(**found[0]["shown"])) == "0 of 3 rows (0 %), 0.0 rows/s"
    points, _ = read_metrics(ctx.metrics_path)
    assert all(point.keys() == {"step", "time", "tokens_per_second"} for point in points)


def test_tokens_are_never_fewer_than_those_of_the_finished_rows(ctx):
    map_rows(ctx, Lagging, rows(128), max_error_share=0.0)
    found = read_progress(ctx.progress_path)
    assert found is not None
    assert (found.done, found.tokens, found.finished_tokens) == (128, 1280, 1280)


def test_the_curves_hold_the_tokens_of_the_progress(ctx):
    map_rows(ctx, partial(Waiting, ctx.progress_path, ((30, 30),)), rows(3), max_error_share=0.0)
    points, _ = read_metrics(ctx.metrics_path)
    assert (points[-1]["step"], points[-1]["tokens"]) == (3, 30)
    assert points[-1]["tokens_per_second"] > 0


def test_speed_counts_from_when_decoding_begins_and_anew_in_another_process(tmp_path):
    path = tmp_path / "progress.json"
    write_progress(path, done=64, total=80, unit="rows")
    for tokens in (640, 700, 690):
        write_progress(path, done=64, total=80, unit="rows", tokens=tokens, finished_tokens=640)
        found = read_progress(path)
        assert found is not None
        assert found.first_tokens == (690 if tokens == 690 else 640)


def progress(**changes):
    given: dict[str, Any] = {"done": 128, "total": 2560, "unit": "rows", "started": 1000.0, "updated": 1080.0}
    given |= {"first": 0, "tokens": 41_210, "finished_tokens": 14_550, "first_tokens": 250}
    return Progress(**given | changes)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "41,210 tokens, 512 tok/s, 128 of 2560 rows (5 %), about 9 min left"),
        ({"done": 0, "finished_tokens": 0}, "41,210 tokens, 512 tok/s, 0 of 2560 rows (0 %)"),
        ({"done": 1, "finished_tokens": 0}, "41,210 tokens, 512 tok/s, 1 of 2560 rows (0 %)"),
        ({"tokens": 250, "finished_tokens": 100}, "250 tokens, 0 tok/s, 128 of 2560 rows (5 %)"),
        ({"tokens": 600, "finished_tokens": 128}, "600 tokens, 4.4 tok/s, 128 of 2560 rows (5 %), about 9.3 min left"),
        ({"done": 2432}, "41,210 tokens, 512 tok/s, 2432 of 2560 rows (95 %), about 1.5 s left"),
        ({"finished_tokens": 500_000}, "41,210 tokens, 512 tok/s, 128 of 2560 rows (5 %), about 5.2 h left"),
        ({"tokens": None}, "128 of 2560 rows (5 %), 1.6 rows/s, 1520 s left"),
        ({"tokens": None, "unit": "steps"}, "128 of 2560 steps (5 %), 1.6 steps/s, 1520 s left"),
    ],
)
def test_a_line_says_tokens_speed_rows_and_the_time_left(changes, line):
    assert describe_progress(progress(**changes)) == line


def test_the_terminal_prints_the_tokens_of_a_running_stage(store, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "LINE_SECONDS", -1.0)
    stage = Number(value=1)
    store.directory(stage).mkdir(parents=True)
    write_progress(store.directory(stage) / "progress.json", done=0, total=256, unit="rows", tokens=1234)
    Terminal(store, total=1).tick([stage])
    assert "Number(value=1)  1,234 tokens, 0 tok/s, 0 of 256 rows (0 %)" in capsys.readouterr().out


def requests(count):
    return [
        Request(row_id=str(number), prompt_token_ids=prompt, max_new_tokens=4 + number)
        for number, prompt in enumerate(ragged_prompts(count, seed=2))
    ]


def test_the_slot_engine_counts_tokens_of_rows_that_are_not_finished():
    post, pre = tiny_pair("llama")
    decoding = Decoding(max_new_tokens=24)
    engine = SlotEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, slots=4)
    assert engine.decoded_tokens == 0
    finished, counts = 0, []
    for completion in engine.decode(requests(12)):
        finished += completion.num_tokens
        counts.append(engine.decoded_tokens - finished)
    assert counts[0] > 0
    assert counts[-1] == 0


def test_the_reference_backend_counts_tokens_when_a_batch_ends():
    post, pre = tiny_pair("llama")
    decoding = Decoding(max_new_tokens=24)
    engine = GenerateEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, batch_size=6)
    counted, found = [], []
    for completion in engine.decode(requests(12)):
        found.append(completion.num_tokens)
        counted.append(engine.decoded_tokens)
    assert counted == [sum(found[:6])] * 6 + [sum(found)] * 6
