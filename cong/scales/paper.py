"""The scale of the paper (section 5.1, appendix C.2); what it leaves open is as its authors published it."""

from cong.data.prompts import HubPrompts
from cong.evaluation import PAPER_TASKS
from cong.evaluation.contests import published_contests
from cong.generation import Sampling
from cong.graph.stage import Stage
from cong.models import HubModel
from cong.scales.hub import BENCHMARKS, ULTRAFEEDBACK, benchmark_data, checkpoint
from cong.scales.hyperparameters import (
    AlignmentSettings,
    AuxConfSettings,
    CandidateSettings,
    ContrastiveSettings,
    DistilSettings,
    DPOSettings,
    ORPOSettings,
    ProxySettings,
    SFTSettings,
    SimPOSettings,
    TaskSettings,
    WSPOSettings,
)
from cong.scales.settings import Scale
from cong.scoring import Reward, RewardModel

CHECKPOINTS = {
    ("qwen", "1.5B"): ("Qwen/Qwen2.5-1.5B-Instruct", "989aa7980e4cf806f80c7fef2b1adb7bc71aa306"),
    ("qwen", "3B"): ("Qwen/Qwen2.5-3B-Instruct", "aa8e72537993ba99e69dfaafa59ed015b17504d1"),
    ("qwen", "7B"): ("Qwen/Qwen2.5-7B-Instruct", "a09a35458c702b33eeacc393d103063234e8bc28"),
    ("qwen", "14B"): ("Qwen/Qwen2.5-14B-Instruct", "cf98f3b3bbb457ad9e2bb7baf9a0125b6b88caa8"),
    ("llama", "3B"): ("meta-llama/Llama-3.2-3B-Instruct", "0cb88a4f764b7a12671c53f0838cd831a0843b95"),
    ("llama", "8B"): ("meta-llama/Meta-Llama-3-8B-Instruct", "5f0b02c75b57c5855da9ae460ce51323ea669d8a"),
}
ARMORM = HubModel(
    repo="RLHFlow/ArmoRM-Llama3-8B-v0.1",
    revision="eb2676d20da2f2d41082289d23c59b9f7427f955",
    trust_remote_code=True,  # The model's class with its gating layer lies in the repository.
)
SECOND_JUDGE = "gpt-5-chat-latest"
"""The paper says GPT-5. AlpacaEval 2's verdict takes log-probabilities, so it must be a model that gives them."""


def paper_scale(domain: str = "chat") -> Scale:
    prompts, heldout, reward = _paper_data(domain)
    diverse = Sampling(temperature=0.8, top_p=0.95)
    return Scale(
        name="paper",
        gpu=True,
        model=lambda family, size, seed: checkpoint(CHECKPOINTS, family, size, owner="the paper"),
        prompts=lambda seed: prompts,
        heldout=lambda seed: heldout,
        reward=lambda seed: reward,
        contests=lambda seed: published_contests(),
        second_contests=lambda seed: published_contests(SECOND_JUDGE),
        domains=BENCHMARKS,
        in_domain=paper_scale,
        alpha={"qwen": 0.5, "llama": 0.4},
        sizes={"qwen": ("3B", "7B"), "llama": ("3B", "8B")},
        ladder={"qwen": ("1.5B", "3B", "7B", "14B"), "llama": ("3B", "8B")},
        max_new_tokens=2048,
        candidates=CandidateSettings(samples=5, sampling=diverse),
        # Batches of 64 sequences of up to 2,048 tokens and a cosine after 10 % of warm-up are the settings' defaults.
        alignment=AlignmentSettings(beta=0.1, learning_rate=8e-7),
        contrastive=ContrastiveSettings(sampling=Sampling(repetition_penalty=1.2)),
        # Greedy as contrastive decoding; its own paper has no penalty.
        proxy=ProxySettings(sampling=Sampling()),
        weak_sft=SFTSettings(learning_rate=1e-5),
        sft=SFTSettings(learning_rate=1e-5, epochs=2),
        # The paper states the ranges that it searched (lambda; beta and gamma), not the learning rates of these two:
        # those are the defaults of ORPO's and SimPO's own papers.
        orpo=ORPOSettings(weight=0.5, learning_rate=8e-6),
        simpo=SimPOSettings(beta=2.0, gamma=1.0, learning_rate=1e-6),
        aux_conf=AuxConfSettings(learning_rate=1e-5),
        wspo=WSPOSettings(beta=0.1, learning_rate=1e-5),
        # The rates that are published for W2S-OPD, 1e-6 to 4e-6, train adapters.
        distil=DistilSettings(learning_rate=1e-6, epochs=2),
        rejected=diverse,
        dpo=DPOSettings(learning_rate=6e-7),
        tasks=lambda seed: TaskSettings(tasks=PAPER_TASKS),
    )


def _paper_data(domain: str) -> tuple[Stage, Stage, Reward]:
    """Return training prompts, held-out prompts and reward."""
    if domain == "chat":
        repo, revision = ULTRAFEEDBACK
        prompts = HubPrompts(repo=repo, revision=revision, split="train_prefs")
        return (
            prompts,
            HubPrompts(repo=repo, revision=revision, split="test_prefs", count=500),
            RewardModel(model=ARMORM),
        )
    return benchmark_data(domain)
