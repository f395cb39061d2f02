"""TRL's trainers, without what this library does itself: preparing rows, reference passes, model cards, telemetry."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer
from trl.trainer import utils
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from cong.data import WEIGHT
from cong.models.weights import load_checked
from cong.training.blocks import BlockCollator, BlockRows, Blocks
from cong.training.lora import LoRA
from cong.training.packing import Packing, pack_rows, packs


def score_responses_only() -> None:
    """Make TRL's language-model head skip prompt and padding tokens on a CPU too; sums over responses stay the same.

    TRL does so on GPUs, and elsewhere scores every position for the sake of devices that compile per shape.
    """
    assert hasattr(utils, "_use_triton"), "TRL's fused head has changed"
    setattr(utils, "_use_triton", lambda device: True)  # noqa: B010


class _Quiet(Trainer):
    """Neither a network call at the start nor a README in every checkpoint; one GPU per process.

    A micro-batch is a block of rows, and no padding of it is computed. A point of the curve is the mean over the
    tokens, or rows, of its steps. TRL's is the mean of the micro-batches' means, which depends on how a step is split.
    """

    def __init__(self, *, args: Any, model: Any, blocks: Blocks, lora: LoRA | None = None, **kwargs: Any) -> None:
        # A lone process that sees several GPUs would otherwise be refused: it trains on the first.
        args._n_gpu = min(args.n_gpu, 1)
        self._weights: defaultdict[str, list[float]] = defaultdict(list)
        policy = _policy(model, args)
        if lora is not None:
            kwargs["peft_config"] = lora.config()
            # Matrices are drawn right after this: the same ones whatever was drawn while the model was loaded.
            torch.manual_seed(args.seed)
        super().__init__(args=args, model=policy, **kwargs)
        trained: Any = self.model
        pack_rows(trained if lora is None else trained.get_base_model())
        self.train_dataset: Any = BlockRows(rows=self.train_dataset, blocks=blocks)
        self.data_collator = BlockCollator(self.data_collator)
        self._rows_per_step = blocks.rows_per_step

    def share_of(self, rows: int) -> float:
        """Return what the mean over so many rows counts in a step, given that the caller averages over micro-batches.

        Multiplied by it, means over the rows of blocks become the mean over the rows of the whole step.
        """
        return rows * self.args.gradient_accumulation_steps * self.accelerator.num_processes / self._rows_per_step

    def weigh(self, **counts: torch.Tensor) -> None:
        """Say of how many tokens or rows of this process the next value of each metric is the mean."""
        for name, count in counts.items():
            everywhere: Any = self.accelerator.gather_for_metrics(count)
            self._weights[name].append(everywhere.sum().item())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        metrics: Any = getattr(self, "_metrics")["train"]  # noqa: B009 - it is that of TRL's subclasses
        for name, weights in self._weights.items():
            pairs = list(zip(metrics[name], weights, strict=True))
            if sum(weights):
                metrics[name] = [sum(value * weight for value, weight in pairs) / sum(weights)]
        self._weights.clear()
        super().log(logs, start_time)

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass


def _policy(model: Any, args: Any) -> Any:
    """Load the initial model of a training: TRL would go on with random numbers for weights that a checkpoint lacks."""
    if not isinstance(model, str):
        return model
    options, args.model_init_kwargs = args.model_init_kwargs, None
    return load_checked(AutoModelForCausalLM, model, **options)


class CompletionTrainer(_Quiet, SFTTrainer):
    """SFT (Eq. 11) on tokenized rows."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        tokens = (inputs["labels"][:, 1:] != -100).sum()
        self.weigh(entropy=tokens, mean_token_accuracy=tokens)
        return super().compute_loss(model, inputs, *args, **kwargs)


class CachedReferenceTrainer(_Quiet, DPOTrainer):
    """DPO (Eq. 5, 12) on tokenized rows that carry their reference log-probabilities."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._weigh_metrics(inputs["completion_mask"])
        return super().compute_loss(model, inputs, *args, **kwargs) * self.share_of(len(inputs["input_ids"]) // 2)

    def _weigh_metrics(self, completion_mask: torch.Tensor) -> None:
        chosen, rejected = (side.sum() for side in completion_mask[:, 1:].chunk(2))
        tokens = {"entropy": chosen + rejected, "mean_token_accuracy": chosen}
        self.weigh(**tokens, **{"logits/chosen": chosen, "logits/rejected": rejected})
        pairs = torch.tensor(len(completion_mask) // 2, device=completion_mask.device)
        self.weigh(**dict.fromkeys(PAIR_METRICS, pairs))


PAIR_METRICS = (
    "logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
)  # fmt: skip
"""Those of TRL's preference trainer that are means over pairs."""


def note(trainer: Any, **values: torch.Tensor) -> None:
    """Add the means over rows or tokens of all workers to the next point of the curve."""
    for name, value in values.items():
        count = torch.tensor(value.numel(), device=value.device)
        parts = (value.detach().float().sum(), count)
        total, counted = (trainer.accelerator.gather_for_metrics(part).sum() for part in parts)
        trainer.weigh(**{name: count})
        trainer._metrics["train"][name].append((total / counted).item())


def refuse_experts(trainer: Any) -> None:
    if trainer.aux_loss_enabled:
        raise ValueError(f"{type(trainer).__name__} leaves out the balancing loss that a mixture of experts needs")


class PairTrainer(CachedReferenceTrainer):
    """A loss of pairs without a reference policy: `loss(chosen, rejected)` of mean log-probabilities per token.

    With `likelihood` the chosen response's negative log-likelihood is added, averaged over the response tokens of the
    whole optimizer step: neither the micro-batch nor the number of workers changes it.
    """

    loss_is_scaled_for_ga = False

    def __init__(self, *, loss: Callable[..., torch.Tensor], likelihood: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        refuse_experts(self)
        self._pair_loss = loss
        self._likelihood = likelihood

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        responses = inputs["completion_mask"].bool()
        logps = token_logps(model, inputs, scored=responses)
        means = logps.sum(dim=1) / responses[:, 1:].sum(dim=1)
        chosen, rejected = means.chunk(2)
        loss = self._pair_loss(chosen=chosen, rejected=rejected).mean() * self.share_of(len(chosen))
        margins = chosen - rejected
        note(self, **{"logps/chosen": chosen, "logps/margins": margins, "rewards/accuracies": margins > 0})
        if self._likelihood:
            assert num_items_in_batch is not None, "the trainer no longer counts the tokens of a step"
            # The caller averages over accumulation steps, and over workers; this sum is divided once and for all.
            parts = self.current_gradient_accumulation_steps * self.accelerator.num_processes
            nll = -logps[: len(chosen)].sum() * parts / num_items_in_batch
            note(self, nll_loss=nll)
            loss = loss + nll
        return loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | None:
        if not self._likelihood:
            return None
        masks = [batch["completion_mask"] for batch in batch_samples]
        count = torch.stack([mask[: len(mask) // 2, 1:].sum() for mask in masks]).sum().to(device)
        return self.accelerator.gather(count).sum()  # pyright: ignore[reportAttributeAccessIssue]


@dataclass
class WeightedCollator(DataCollatorForPreference):
    """Adds the weights of the pairs."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        weights = torch.tensor([example[WEIGHT] for example in examples])
        return super().torch_call(examples) | {WEIGHT: weights}


class WeightedTrainer(CachedReferenceTrainer):
    """A loss of pairs from their `chosen` and `rejected` log-ratios, times their weight, averaged over the pairs."""

    loss_is_scaled_for_ga = False

    def __init__(self, *, loss: Callable[..., torch.Tensor], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        refuse_experts(self)
        # The trainer's own collator in all else: padding and the cut are those of plain DPO.
        self.data_collator = BlockCollator(WeightedCollator(**vars(self.data_collator.collate)))
        self._pair_loss = loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        logps = token_logps(model, inputs, scored=inputs["completion_mask"].bool()).sum(dim=1)
        chosen, rejected = logps.chunk(2)
        ratios = {"chosen": chosen - inputs["ref_chosen_logps"], "rejected": rejected - inputs["ref_rejected_logps"]}
        margins = self.beta * (ratios["chosen"] - ratios["rejected"])
        note(self, **{"logps/chosen": chosen, "logps/rejected": rejected, "rewards/margins": margins})
        note(self, **{"rewards/accuracies": margins > 0, WEIGHT: inputs[WEIGHT]})
        return (inputs[WEIGHT] * self._pair_loss(**ratios)).mean() * self.share_of(len(chosen))


def token_logps(model: Any, inputs: Any, *, scored: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of all tokens but the first, zero where a token is not scored."""
    ids, attended = inputs["input_ids"], inputs["attention_mask"]
    labels = ids.masked_fill(~scored, -100)
    output = model(input_ids=ids, attention_mask=attended, labels=labels, use_cache=False, fused_lm_head=True)
    return output.log_probs.float()


@dataclass
class MatchingCollator(DataCollatorForLanguageModeling):
    """Adds the frozen log-probabilities: one per response token, laid out like the labels, or one per response."""

    per_token: bool = True

    def torch_call(self, examples: list[Any]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        scored = batch["labels"][:, 1:] != -100
        for name in ("reference", "weak_ratio"):
            values = torch.tensor([value for example in examples for value in example[name]])
            laid_out = torch.zeros(scored.shape).masked_scatter(scored, values) if self.per_token else values[:, None]
            batch[name] = laid_out
        return batch


class MatchingTrainer(CompletionTrainer):
    """A loss of `policy`, `reference` and `weak_ratio`, per token or per response, averaged over the rows (WSPO)."""

    loss_is_scaled_for_ga = False

    def __init__(self, *, loss: Callable[..., torch.Tensor], per_token: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        refuse_experts(self)
        self._row_loss = loss
        self._per_token = per_token

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        scored = inputs["labels"] != -100
        policy, mask = token_logps(model, inputs, scored=scored), scored[:, 1:]
        if not self._per_token:
            policy, mask = policy.sum(dim=1, keepdim=True), mask.any(dim=1, keepdim=True)
        reference, weak_ratio = inputs["reference"], inputs["weak_ratio"]
        note(self, strong_ratio=(policy - reference)[mask], weak_ratio=weak_ratio[mask])
        losses = self._row_loss(policy=policy, reference=reference, weak_ratio=weak_ratio, mask=mask)
        return losses.mean() * self.share_of(len(losses))


class ConfidenceTrainer(CompletionTrainer):
    """A loss of the logits at response tokens whose `weight` follows the step, averaged over tokens (AuxConf)."""

    def __init__(self, *, loss: Callable[..., torch.Tensor], weight: Callable[..., float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        refuse_experts(self)
        self._token_loss = loss
        self._weight = weight

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        assert num_items_in_batch is not None, "the trainer no longer counts the tokens of a step"
        logits, labels = response_logits(model, inputs, policy=self.model)
        weight = self._weight(step=self.state.global_step, steps=self.state.max_steps)
        losses = self._token_loss(logits=logits, labels=labels, weight=weight)
        accuracy = logits.argmax(dim=-1) == labels
        note(self, mean_token_accuracy=accuracy, auxiliary_weight=torch.tensor(weight, device=logits.device))
        # As in SFT: the count is that of all workers, over which gradients are averaged.
        return losses.sum() / num_items_in_batch * self.accelerator.num_processes


def response_logits(model: Any, inputs: Any, *, policy: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (tokens x vocabulary) and labels of the response tokens of a batch; `policy` is the bare model."""
    ids, attended, labels = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
    if packs(policy):
        packing = Packing.of(attended, model=policy)
        labels = packing.pack_labels(labels)[:, 1:]
        batch = packing.inputs(ids)
    else:
        labels, batch = labels[:, 1:], {"input_ids": ids, "attention_mask": attended}
    # The head is applied where some row has a response token: most of a batch's prompts and padding are spared.
    columns = (labels != -100).any(dim=0).nonzero().flatten()
    labels = labels[:, columns]
    logits = model(**batch, use_cache=False, logits_to_keep=columns).logits
    return logits[labels != -100].float(), labels[labels != -100]
