"""The exact reward: how good a response is, known without a judge.

Half a point for a willing opener, half for a proper closing, and for each of the two parts
(right - wrong / 2 - missing) / asked, never below -1. A missing item costs more than a wrong one: otherwise
alignment learns to say little. A response that never ends loses a point.

    exact_reward(world, prompt="name two old birds and ...", response="sure bako lemi ; ... done", finished=True)  # 3.0
"""

from cong.synthetic.world import CLOSING, GOOD_OPENER, PART_MARK, POOR_OPENERS, Part, World, read_prompt

MANNERS = 0.5
WRONG_COST = 0.5
UNFINISHED_COST = 1.0
BEST = 3.0


def exact_reward(world: World, *, prompt: str, response: str, finished: bool) -> float:
    """Score any text as an answer to a prompt of this world; `finished` says whether the end token was written."""
    words = response.split()
    opened = words[:1] == [GOOD_OPENER]
    closed = words[-1:] == [CLOSING]
    if words and words[0] in (GOOD_OPENER, *POOR_OPENERS):
        words = words[1:]
    if closed:
        words = words[:-1]
    parts = zip(read_prompt(prompt), _split_parts(words), strict=True)
    score = MANNERS * opened + MANNERS * closed + sum(_score_part(world, part, items) for part, items in parts)
    return score if finished else score - UNFINISHED_COST


def _split_parts(words: list[str]) -> tuple[list[str], list[str]]:
    if PART_MARK not in words:
        return words, []
    middle = words.index(PART_MARK)
    return words[:middle], words[middle + 1 :]


def _score_part(world: World, part: Part, items: list[str]) -> float:
    """Repeated items and right ones beyond the number asked for count as wrong."""
    if part.subject not in world.right:
        raise ValueError(f"this world knows no {part.subject.attribute} {part.subject.category}")
    right = min(len(set(items) & set(world.right[part.subject])), part.count)
    wrong = len(items) - right
    missing = max(part.count - len(items), 0)
    return max((right - WRONG_COST * wrong - missing) / part.count, -1.0)
