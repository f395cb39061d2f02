"""The small scale: published models of 0.1 to 1.7 billion parameters, on one GPU. Its settings are untuned."""

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
    Steps,
    TaskSettings,
    WSPOSettings,
)
from cong.scales.paper import CHECKPOINTS, SECOND_JUDGE
from cong.scales.settings import Scale
from cong.scoring import Reward, RewardModel

SMALL_CHECKPOINTS = {
    ("smollm", "135M"): ("HuggingFaceTB/SmolLM2-135M-Instruct", "12fd25f77366fa6b3b4b768ec3050bf629380bac"),
    ("smollm", "360M"): ("HuggingFaceTB/SmolLM2-360M-Instruct", "a10cc1512eabd3dde888204e902eca88bddb4951"),
    ("smollm", "1.7B"): ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "31b70e2e869a7173562077fd711b654946d38674"),
    ("qwen", "0.5B"): ("Qwen/Qwen2.5-0.5B-Instruct", "7ae557604adf67be50417f59c2c2f167def9a775"),
    ("qwen", "1.5B"): CHECKPOINTS["qwen", "1.5B"],
}
DEBERTA = HubModel(
    repo="OpenAssistant/reward-model-deberta-v3-large-v2", revision="c355404efa9ad2ad069f3a197cae0523c14244fc"
)
PROMPTS, HELDOUT = 8_000, 500


def small_scale(domain: str = "chat") -> Scale:
    prompts, heldout, reward = _small_data(domain)
    diverse = Sampling(temperature=0.8, top_p=0.95)
    # Half of the paper's batch, for an eighth of its prompts would make 125 steps of 64. Half of the tokens are for the
    # prompt: a response has 512 at most.
    steps: Steps = {"global_batch_size": 32, "max_length": 1024}
    # Above the paper's rates: smaller models are usually trained at higher ones, and their steps are fewer here.
    sft, preference = 2e-5, 2e-6
    return Scale(
        name="small",
        # Nothing of 0.1 to 1.7 billion parameters is to be trained on a few cores by mistake.
        gpu=True,
        model=lambda family, size, seed: checkpoint(SMALL_CHECKPOINTS, family, size, owner="the small scale"),
        prompts=lambda seed: prompts,
        heldout=lambda seed: heldout,
        reward=lambda seed: reward,
        # The published benchmarks, whose figures can be compared with other people's. They ask an API, which costs
        # money, but only in the experiments that play them: all others are judged by the reward model.
        contests=lambda seed: published_contests(),
        second_contests=lambda seed: published_contests(SECOND_JUDGE),
        domains=BENCHMARKS,
        in_domain=small_scale,
        alpha={"smollm": 0.4, "qwen": 0.4},
        # Both SmolLM2 models are trained whole within 24 GB, without main memory, and 1.7B is left as the larger
        # strong model of table 6 and of the gap between sizes.
        sizes={"smollm": ("135M", "360M"), "qwen": ("0.5B", "1.5B")},
        ladder={"smollm": ("135M", "360M", "1.7B"), "qwen": ("0.5B", "1.5B")},
        # A quarter of the paper's, so that decoding, and the reward model's reading, stay cheap.
        max_new_tokens=512,
        candidates=CandidateSettings(samples=5, sampling=diverse),
        alignment=AlignmentSettings(beta=0.1, learning_rate=preference, **steps),
        # The paper's repetition penalty, without a reason to change it.
        contrastive=ContrastiveSettings(sampling=Sampling(repetition_penalty=1.2)),
        # Greedy as contrastive decoding, without its penalty: a strong model does not repeat itself as F does.
        proxy=ProxySettings(sampling=Sampling()),
        weak_sft=SFTSettings(learning_rate=sft, **steps),
        sft=SFTSettings(learning_rate=sft, epochs=2, **steps),
        # ORPO's rate is that of its own paper, as at paper scale.
        orpo=ORPOSettings(weight=0.5, learning_rate=8e-6, **steps),
        simpo=SimPOSettings(beta=2.0, gamma=1.0, learning_rate=preference, **steps),
        aux_conf=AuxConfSettings(learning_rate=sft, **steps),
        wspo=WSPOSettings(beta=0.1, learning_rate=sft, **steps),
        distil=DistilSettings(learning_rate=preference, epochs=2, **steps),
        rejected=diverse,
        # Stage II begins at what SFT has just made; in the paper too its rate is below that of the alignment.
        dpo=DPOSettings(learning_rate=1.5e-6, **steps),
        tasks=lambda seed: TaskSettings(tasks=PAPER_TASKS),
    )


def _small_data(domain: str) -> tuple[Stage, Stage, Reward]:
    """Return training prompts, held-out prompts and reward."""
    if domain != "chat":
        return benchmark_data(domain)
    repo, revision = ULTRAFEEDBACK
    # An eighth of the paper's, and a reward model of 0.4 billion parameters instead of 8: it reads five candidates per
    # prompt, and is to cost about as much as the models that it judges.
    return (
        HubPrompts(repo=repo, revision=revision, split="train_prefs", count=PROMPTS),
        HubPrompts(repo=repo, revision=revision, split="test_prefs", count=HELDOUT),
        RewardModel(model=DEBERTA, reads="pair"),
    )
