"""A scale of packaged models: SmolLM2-135M and Gemma-3-270M on a CPU, rewarded for friendly sentences.

Controlled sentiment is the field's small task with a reward that needs no model. The reward is VADER's (Hutto and
Gilbert, 2014), the mean of the sentences' compound scores, each from -1 to 1: the score of a whole text is close to 1
after a few friendly words. It looks at words alone, so a measure of fluency must stand beside it.

    cong mirror && cong run experiments/smollm2.py
    cong run experiments/alpha_sweep.py --scale experiments/scales/sentiment.py --set family=smollm2
"""

import dataclasses
import functools
import re
from pathlib import Path

from cong.data.prompts import LocalFile, PromptFile
from cong.errors import UserError, require
from cong.generation import Sampling
from cong.models.packaged import PackagedModel, packaged
from cong.scales import Scale
from cong.scales import scale as built_in
from cong.scales.hyperparameters import CandidateSettings, ContrastiveSettings, TaskSettings
from cong.scoring import FunctionReward

CHECKPOINTS = {("smollm2", "135M"): "SmolLM2-135M-Instruct", ("gemma", "270M"): "gemma-3-270m"}
# Small models repeat themselves when they decode greedily, as the paper's do: it takes 1.2 for them.
UNREPEATED = Sampling(repetition_penalty=1.1)


@functools.cache
def _analyzer():
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def sentiment(prompt: str, response: str) -> float:
    """Return the mean compound score of the response's sentences, 0 for an empty response."""
    sentences = [part for part in re.split(r"(?<=[.!?])\s+|\n+", response) if part.strip()]
    scores = [_analyzer().polarity_scores(sentence)["compound"] for sentence in sentences]
    return sum(scores) / len(scores) if scores else 0.0


def scale() -> Scale:
    require("vaderSentiment", extra="sentiment")
    tiny = built_in("tiny")
    diverse = Sampling(temperature=1.0, top_p=0.95)
    batches = {"global_batch_size": 8, "max_length": 256}
    stage_one = dataclasses.replace(tiny.sft, learning_rate=3e-5, epochs=2, **batches)
    return dataclasses.replace(
        tiny,
        name="sentiment",
        model=lambda family, size, seed: _model(family, size),
        prompts=lambda seed: _prompts("train"),
        heldout=lambda seed: _prompts("heldout"),
        reward=lambda seed: FunctionReward(function=sentiment),
        contests=lambda seed: (),
        second_contests=lambda seed: (),
        domains=(),
        in_domain=_in_domain,
        alpha={"smollm2": 0.4, "gemma": 0.4},
        sizes={"smollm2": ("135M", "135M"), "gemma": ("270M", "270M")},
        max_new_tokens=40,
        candidates=CandidateSettings(samples=4, sampling=diverse),
        alignment=dataclasses.replace(tiny.alignment, learning_rate=2e-5, epochs=2, **batches),
        contrastive=ContrastiveSettings(sampling=UNREPEATED),
        weak_sft=stage_one,
        sft=stage_one,
        orpo=dataclasses.replace(tiny.orpo, learning_rate=2e-5, epochs=2, **batches),
        simpo=dataclasses.replace(tiny.simpo, learning_rate=2e-5, epochs=2, **batches),
        aux_conf=dataclasses.replace(tiny.aux_conf, learning_rate=3e-5, epochs=2, **batches),
        wspo=dataclasses.replace(tiny.wspo, learning_rate=3e-5, epochs=2, **batches),
        rejected=diverse,
        dpo=dataclasses.replace(tiny.dpo, learning_rate=1e-5, **batches),
        tasks=lambda seed: TaskSettings(tasks=()),
    )


def _model(family: str, size: str) -> PackagedModel:
    if (family, size) not in CHECKPOINTS:
        known = ", ".join(f"{family}-{size}" for family, size in CHECKPOINTS)
        raise UserError(f"there is no packaged model {family}-{size}: there are {known}")
    return packaged(CHECKPOINTS[family, size])


def _prompts(split: str) -> PromptFile:
    return PromptFile(file=LocalFile(path=str(Path(__file__).with_name(f"opinions_{split}.jsonl"))))


def _in_domain(domain: str) -> Scale:
    raise UserError(f"this scale has no domain {domain!r}: its only prompts are questions for opinions")
