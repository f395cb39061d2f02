"""Stop strings: where in a row of generated tokens the text first holds one of them.

The tokens up to the one that completes a stop string are kept:

    StopStrings(("\\n\\n",), tokenizer=tokenizer).end(tokens, searched=0)  # their number, or None
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


class StopStrings:
    """Finds the earliest token that completes a stop string. False when there are none to look for."""

    def __init__(self, strings: tuple[str, ...], *, tokenizer: PreTrainedTokenizerBase | None) -> None:
        if strings and tokenizer is None:
            raise ValueError(f"stop_strings are {strings!r}; they need a tokenizer")
        self.strings, self.tokenizer = strings, tokenizer
        # A token adds at least one byte, but for special ones; some more, because a decoder may trim a text's start.
        self._window = max((len(string.encode()) for string in strings), default=0) + 8

    def __bool__(self) -> bool:
        return bool(self.strings)

    def end(self, tokens: Sequence[int], *, searched: int) -> int | None:
        """Number of tokens up to the first that completes a stop string; the first `searched` ones complete none."""
        if not self.strings:
            return None
        start = max(0, searched - self._window)
        if not self._holds(tokens[start:]):
            return None
        return next(count for count in range(searched + 1, len(tokens) + 1) if self._holds(tokens[start:count]))

    def _holds(self, tokens: Sequence[int]) -> bool:
        assert self.tokenizer is not None
        text = str(self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return any(string in text for string in self.strings)
