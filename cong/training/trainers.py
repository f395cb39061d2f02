"""TRL's trainers, without what this library does itself: preparing rows, reference passes, model cards, telemetry."""

from typing import Any

from transformers import Trainer
from trl.trainer import utils
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import SFTTrainer


def score_responses_only() -> None:
    """Make TRL's language-model head skip prompt and padding tokens on a CPU too; sums over responses stay the same.

    TRL does so on GPUs, and elsewhere scores every position for the sake of devices that compile per shape.
    """
    assert hasattr(utils, "_use_triton"), "TRL's fused head has changed"
    setattr(utils, "_use_triton", lambda device: True)  # noqa: B010


class _Quiet(Trainer):
    """Neither a network call at the start nor a README in every checkpoint; one GPU per process."""

    def __init__(self, *, args: Any, **kwargs: Any) -> None:
        # A lone process that sees several GPUs would otherwise be refused: it trains on the first.
        args._n_gpu = min(args.n_gpu, 1)
        super().__init__(args=args, **kwargs)

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass


class CompletionTrainer(_Quiet, SFTTrainer):
    """SFT (Eq. 11) on tokenized rows."""


class CachedReferenceTrainer(_Quiet, DPOTrainer):
    """DPO (Eq. 5, 12) on tokenized rows that carry their reference log-probabilities."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset
