"""Reward models: sequence classifiers that read conversations in batches of similar length.

    classifier = Classifier(directory, resources)
    rewards = classifier.rewards([Encoded((1, 2, 3)), Encoded((1, 2))])      # as each alone, but for rounding

A batch is padded on its right, with the id by which the model's class finds the last token of a row; classes look for
it in `input_ids` and not in the mask. Whether a class allows that at all is tried once, on two conversations of unequal
length: XLNet reads the last place whatever stands there, and BART refuses rows with unequal numbers of end tokens. Such
classes, and ropes that follow the longest row, get one conversation at a time.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cong.data import Row
from cong.data.conversations import conversation
from cong.errors import UserError
from cong.graph.libraries import import_libraries
from cong.graph.resources import Resources
from cong.models.chat import load_tokenizer
from cong.models.memory import CLASSIFIED_TOKENS
from cong.scoring.reading import READERS, Encoded, Reads, positions_of
from cong.scoring.scored import scored
from cong.scoring.scorers import BATCH, CHUNK, tokens_fault

_TRIED = ("a", "b c d e f g")
"""Texts of the conversations on which batches are tried."""
_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Of a try, relative to the larger of 1 and the score: rounding stays far below, another token's score does not."""


class Classifier:
    """A model with one score per conversation; `label` is the logit that is the score where there are several."""

    def __init__(
        self,
        directory: Path,
        resources: Resources,
        *,
        trust_remote_code: bool = False,
        label: int | None = None,
        reads: Reads = "chat",
    ) -> None:
        import_libraries("cong.decoding")
        import torch
        from transformers import AutoModelForSequenceClassification

        from cong.decoding import load_checked

        hardware = resources.hardware
        if hardware.device == "cpu":
            torch.set_num_threads(hardware.threads)
        self.directory, self.label, self._read = directory, label, READERS[reads]
        self._most = CLASSIFIED_TOKENS[hardware.device]
        self.tokenizer = load_tokenizer(directory)
        model: Any = load_checked(
            AutoModelForSequenceClassification,
            directory,
            dtype=getattr(torch, hardware.dtype),
            trust_remote_code=trust_remote_code,
        )
        if not trust_remote_code:
            self._logit(model.config.num_labels)
        self._text = model.config.get_text_config()
        # Nothing is decoded: keys and values of a whole batch would be kept for nobody.
        self._text.use_cache = False
        self.vocabulary, self.positions = self._text.vocab_size, positions_of(self._text)
        self.model = model.to(hardware.device).eval()
        self.rows_at_a_time = BATCH if self._allows_batches(_TOLERANCE[hardware.dtype]) else 1

    def encode(self, turns: list[dict[str, str]]) -> Encoded:
        """Return a whole conversation as the model reads it."""
        return self._read(self.tokenizer, turns)

    def rewards(self, conversations: Sequence[Encoded]) -> list[float]:
        """Return the score of every conversation."""
        found = [math.nan] * len(conversations)
        lengths = [len(one.tokens) for one in conversations]
        for places in batches(lengths, rows=self.rows_at_a_time, tokens=self._most):
            scores = self._forward([conversations[place] for place in places])
            for place, score in zip(places, scores, strict=True):
                # A broken embedding reaches the rows beside its own through the padding, and alone it does not.
                alone = len(places) == 1 or math.isfinite(score)
                found[place] = score if alone else self._forward([conversations[place]])[0]
        return found

    def _forward(self, conversations: Sequence[Encoded]) -> list[float]:
        import torch

        pad = self._pad(conversations)
        inputs = _padded(conversations, pad=pad)
        with torch.inference_mode():
            output = self._called(
                {name: torch.tensor(value, device=self.model.device) for name, value in inputs.items()}, pad
            )
        # ArmoRM's own class calls its scalar `score`; plain classifiers have logits.
        values = output["score"] if "score" in output else output.logits  # noqa: SIM401 - `logits` may be missing
        values = values.float().reshape(len(conversations), -1)
        return values[:, self._logit(values.shape[1])].tolist()

    def _called(self, inputs: dict[str, Any], pad: int) -> Any:
        """Call the model; where it has no padding token of its own, it has this one meanwhile."""
        own = self._text.pad_token_id
        if len(inputs["input_ids"]) > 1:
            self._text.pad_token_id = pad
        try:
            return self.model(**inputs)
        finally:
            self._text.pad_token_id = own

    def _pad(self, conversations: Sequence[Encoded]) -> int:
        """Return the model's padding token; without one, a token that none of the conversations ends with."""
        own = self._text.pad_token_id
        if own is not None and 0 <= own < self.vocabulary:
            return own
        ends = {one.tokens[-1] for one in conversations}
        return next(token for token in range(len(ends) + 1) if token not in ends)

    def _allows_batches(self, tolerance: float) -> bool:
        from cong.decoding.models import common_rope_end

        if common_rope_end(self.model.config) is not None:
            return False
        try:
            tried = [
                self.encode([{"role": "user", "content": text}, {"role": "assistant", "content": text}])
                for text in _TRIED
            ]
            together, alone = self._forward(tried), [self._forward([one])[0] for one in tried]
        except Exception:
            # Every class has its own way to refuse a batch. What it refuses row by row is told row by row.
            return False
        return all(abs(a - b) <= tolerance * max(1.0, abs(b)) for a, b in zip(together, alone, strict=True))

    def _logit(self, count: int) -> int:
        """Return which of so many logits is the reward; raise `UserError` when nobody said."""
        if self.label is None and count != 1:
            raise UserError(
                f"{self.directory} has {count} labels: say which is the reward, RewardModel(model=..., label=0)"
            )
        if self.label is not None and not 0 <= self.label < count:
            raise UserError(f"{self.directory} has {count} labels, and none is number {self.label}")
        return self.label or 0


def _padded(conversations: Sequence[Encoded], *, pad: int) -> dict[str, list[list[int]]]:
    """Return the inputs of a model, every row filled up to the longest on its right."""
    longest = max(len(one.tokens) for one in conversations)

    def filled(values: Sequence[int], value: int) -> list[int]:
        return [*values, *[value] * (longest - len(values))]

    inputs = {
        "input_ids": [filled(one.tokens, pad) for one in conversations],
        "attention_mask": [filled([1] * len(one.tokens), 0) for one in conversations],
    }
    segments = [filled(one.segments, 0) for one in conversations if one.segments is not None]
    return inputs | ({"token_type_ids": segments} if segments else {})


def batches(lengths: Sequence[int], *, rows: int, tokens: int) -> Iterator[list[int]]:
    """Yield positions in batches, the shortest first: at most so many rows, and padded tokens where it is not one."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == rows or (len(batch) + 1) * lengths[place] > tokens):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


class RewardScorer(Classifier):
    """Worker that holds a reward model."""

    def process(self, rows: list[Row]) -> Iterator[Row]:
        """Yield every row with the model's score of the conversation."""
        for start in range(0, len(rows), CHUNK):
            good: list[tuple[Row, Encoded]] = []
            for row in rows[start : start + CHUNK]:
                encoded = self._encoded(row)
                if isinstance(encoded, str):
                    yield scored(row, None, error=encoded)
                else:
                    good.append((row, encoded))
            rewards = self.rewards([encoded for _, encoded in good])
            yield from (scored(row, reward) for (row, _), reward in zip(good, rewards, strict=True))

    def _encoded(self, row: Row) -> Encoded | str:
        """Return the conversation as the model reads it, or why this row has no score."""
        if row["error"] is not None:
            return row["error"]
        try:
            encoded = self.encode([*conversation(row), {"role": "assistant", "content": row["response"]}])
        except Exception as error:
            # Chat templates and tokenizers raise what they like at texts that they do not understand.
            return f"the chat cannot be formatted: {type(error).__name__}: {error}"
        vocabulary, positions = self.vocabulary, self.positions
        return tokens_fault(encoded.tokens, (), vocabulary=vocabulary, positions=positions) or encoded
