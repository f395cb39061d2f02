"""Rows of data: what they look like, where prompts and benchmarks come from, how final answers are found."""

from cong.data.rows import (
    MARGINS,
    PAIRS,
    PROMPTS,
    REFERENCE,
    RESPONSES,
    SCORES,
    WEIGHT,
    Row,
    by_prompt,
    chat_prompt_ids,
    check_failures,
    check_prompts,
    copy_rows,
    read_rows,
    row_seed,
    write_rows,
)

__all__ = [
    "MARGINS",
    "PAIRS",
    "PROMPTS",
    "REFERENCE",
    "RESPONSES",
    "SCORES",
    "WEIGHT",
    "Row",
    "by_prompt",
    "chat_prompt_ids",
    "check_failures",
    "check_prompts",
    "copy_rows",
    "read_rows",
    "row_seed",
    "write_rows",
]
