"""`Evaluation`: what the stages that judge responses one by one have in common; the response browser asks it."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

from cong.data import Row
from cong.graph.stage import Stage


class Evaluation(Stage, ABC):
    """Base of the stages that give every response a number."""

    MEASURE: ClassVar[Literal["reward", "preference"]] = "reward"
    """What the number is: a reward, or a preference from 0 (the baseline's response) to 1 (this one)."""

    @abstractmethod
    def judged(self, directory: Path) -> list[Row]:
        """Return prompt_id, prompt, response and reward of what a finished run judged; it lies in `directory`."""
