"""How many prompts the published data sets have: what a plan counts with before anything is downloaded."""

_ROWS = {
    ("ultrafeedback_binarized", "train_prefs"): 61_135,
    ("ultrafeedback_binarized", "test_prefs"): 2_000,
    ("gsm8k", "train"): 7_473,
    ("gsm8k", "test"): 1_319,
    ("hendrycks_math", "train"): 7_500,
    ("hendrycks_math", "test"): 5_000,
    ("mbpp", "train"): 374,
    ("mbpp", "test"): 500,
    ("openai_humaneval", "test"): 164,
    ("alpaca_eval", ""): 805,
    ("arena_hard", ""): 500,
}
"""A prompt that comes twice counts twice."""


def published_rows(repo: str, split: str = "", *, count: int | None = None) -> int:
    """Return the rows of a split, or the first `count` of them; 0 where the data set is not known."""
    whole = _ROWS.get((repo.split("/")[-1], split), 0)
    return min(whole, count or whole)
