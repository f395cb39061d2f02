"""What the command line names: models, prompts, preferences and rewards, as texts.

model_of("models/weak")                              # a directory, OWNER/NAME@COMMIT, or a packaged checkpoint
prompts_of("prompts.jsonl")                          # .jsonl, .json, .parquet, or OWNER/NAME@COMMIT:SPLIT
reward_of("rewards.py:positive")                     # a function, "answers", "tests", or a classifier
"""

import json
import re
from pathlib import Path

from cong.data.preferences import HubPreferences, PreferenceFile
from cong.data.prompts import HubPrompts, LocalFile, PromptFile
from cong.errors import UserError
from cong.graph.stage import Stage
from cong.models import HubModel, LocalModel, packaged
from cong.models.handles import Checkpoint
from cong.models.packaged import PACKAGES
from cong.scoring import AnswerMatch, Reward, RewardModel, UnitTests, reward_from

_HUB_MODEL = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
_HUB_DATA = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40}):(?P<split>.+)")
_FILES = (".jsonl", ".json", ".parquet")


def model_of(text: str) -> Checkpoint:
    """Return a checkpoint; raise `UserError` when there is none of that name."""
    if text in PACKAGES:
        return packaged(text)
    if found := _HUB_MODEL.fullmatch(text):
        return HubModel(repo=found["repo"], revision=found["revision"])
    path = Path(text).expanduser()
    if not path.is_dir():
        raise UserError(
            f"{text} is no model: name a directory, OWNER/NAME@COMMIT with 40 hexadecimal digits, or one of "
            f"{', '.join(PACKAGES)}"
        )
    return LocalModel(path=str(path.absolute()))


def prompts_of(text: str) -> Stage:
    """Return the prompts of a file or a dataset."""
    if found := _HUB_DATA.fullmatch(text):
        return HubPrompts(repo=found["repo"], revision=found["revision"], split=found["split"])
    return PromptFile(file=_file(text, kind="prompts"))


def preferences_of(text: str) -> Stage:
    """Return the preference pairs of a file or a dataset."""
    if found := _HUB_DATA.fullmatch(text):
        return HubPreferences(repo=found["repo"], revision=found["revision"], split=found["split"])
    return PreferenceFile(file=_file(text, kind="preferences"))


def reward_of(text: str) -> Reward:
    """Return a reward."""
    if ".py" in text:
        return reward_from(text)
    checked = {"answers": AnswerMatch, "tests": UnitTests}
    return checked[text]() if text in checked else RewardModel(model=_classifier(text))


def _classifier(text: str) -> Checkpoint:
    model = model_of(text)
    directory = model.at_hand()
    config = json.loads((directory / "config.json").read_text()) if directory else {}
    if any(name.endswith("ForCausalLM") for name in config.get("architectures") or ()):
        raise UserError(f"{text} is a language model, and no classifier: it gives conversations no score")
    return model


def _file(text: str, *, kind: str) -> LocalFile:
    if not text.endswith(_FILES):
        raise UserError(f"{text}: {kind} are a {', '.join(_FILES)} file, or a dataset OWNER/NAME@COMMIT:SPLIT")
    return LocalFile(path=str(Path(text).expanduser().absolute()))
