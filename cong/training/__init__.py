"""Training: supervised fine-tuning (Eq. 11), direct preference optimization (Eq. 5 and 12) and the baselines as stages.

    student = SFT(model=strong, data=responses, learning_rate=1e-5, epochs=2)
    aligned = DPO(model=student, data=pairs, beta=0.5, learning_rate=6e-7)

What is learned is a function of the stages' fields alone. Workers, DeepSpeed and micro-batch come from the profile and
change neither the rows of an optimizer step nor their order.
"""

from cong.training.auxconf import AuxConf
from cong.training.distil import Distil
from cong.training.dpo import DPO
from cong.training.extrapolated import Extrapolated
from cong.training.lora import LoRA
from cong.training.orpo import ORPO
from cong.training.raven import Raven
from cong.training.reference import ReferenceLogprobs
from cong.training.sft import SFT
from cong.training.simpo import SimPO
from cong.training.toplogprobs import TopLogprobs
from cong.training.wspo import WSPO, ResponseLogprobs

__all__ = [
    "DPO",
    "ORPO",
    "SFT",
    "WSPO",
    "AuxConf",
    "Distil",
    "Extrapolated",
    "LoRA",
    "Raven",
    "ReferenceLogprobs",
    "ResponseLogprobs",
    "SimPO",
    "TopLogprobs",
]
