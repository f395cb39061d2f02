"""No padding is computed: a packed batch gives what the padded one gives, and no row sees another."""

import pytest
import torch
from reference_decoding import tiny_model
from trl.trainer.utils import add_fused_lm_head

from cong.decoding.sizing import architecture
from cong.training import packed_attention
from cong.training.packed_attention import Rows, by_groups, largest_error
from cong.training.packing import FAMILIES, Packing, pack_rows, packs
from cong.training.trainers import response_logits

LENGTHS = (17, 3, 16, 1, 9)


def batch(seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> dict[str, torch.Tensor]:
    """Ragged rows, padded on the right; the first tokens of each are a prompt, but of one row all are scored."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 60, mask.shape, generator=generator) * mask
    prompt = torch.arange(max(lengths)) < torch.tensor([4, 1, 0, 1, 5])[: len(lengths), None]
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(prompt | (mask == 0), -100)}


def model(family: str, *, packed: bool, **settings):
    made = tiny_model(family, seed=1, **settings).requires_grad_(True)
    add_fused_lm_head(made, outputs=("log_probs", "entropy", "is_top1"))
    if packed:
        pack_rows(made)
        assert packs(made)
    return made


@pytest.fixture(autouse=True)
def compact(monkeypatch):
    """TRL's head as the training sets it."""
    monkeypatch.setattr("trl.trainer.utils._use_triton", lambda device: True)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_have_the_log_probabilities_and_gradients_of_padded_ones(family):
    outputs, gradients = [], []
    weight = torch.randn(len(LENGTHS), max(LENGTHS) - 1, generator=torch.Generator().manual_seed(3))
    for packed in (False, True):
        made = model(family, packed=packed)
        output = made(**batch(), fused_lm_head=True)
        (output.log_probs * weight).sum().backward()
        outputs.append(output)
        gradients.append([p.grad for p in made.parameters() if p.grad is not None])
    padded, packed = outputs
    for name in ("log_probs", "entropy", "is_top1"):
        torch.testing.assert_close(getattr(packed, name).float(), getattr(padded, name).float(), atol=1e-5, rtol=0)
    assert torch.equal(packed.label_mask, padded.label_mask)
    assert (padded.log_probs < -1e-3).sum() == (batch()["labels"][:, 1:] != -100).sum()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * max(1, one.abs().max().item()), rtol=0)


@pytest.mark.parametrize("family", ["qwen2", "mistral"])
def test_a_sliding_window_reaches_over_no_row_and_cuts_long_ones(family):
    window = {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 0}
    padded, packed = (model(family, packed=packed, **window)(**batch(), fused_lm_head=True) for packed in (False, True))
    torch.testing.assert_close(packed.log_probs, padded.log_probs, atol=1e-5, rtol=0)
    whole = model(family, packed=True)(**batch(), fused_lm_head=True)
    assert (whole.log_probs - packed.log_probs).abs().max() > 1e-4


def test_another_neighbour_changes_nothing_of_a_row():
    made, first, second = model("qwen2", packed=True), batch(), batch(seed=7)
    mixed = {name: torch.cat([first[name][:1], second[name][1:]]) for name in first}
    one, other = (made(**rows, fused_lm_head=True).log_probs[0] for rows in (first, mixed))
    assert torch.equal(one, other)


def test_a_gradient_of_one_row_reaches_no_token_of_another():
    made, rows = model("qwen2", packed=True), batch()
    seen = []
    made.get_input_embeddings().register_forward_hook(lambda *args: seen.append(args[2]) or args[2].retain_grad())
    made(**rows, fused_lm_head=True).log_probs[2].sum().backward()
    own = slice(sum(LENGTHS[:2]), sum(LENGTHS[:3]))
    touched = seen[0].grad[0].abs().sum(dim=-1) > 0
    # The last token of a row predicts nothing.
    assert touched.nonzero().flatten().tolist() == list(range(own.start, own.stop - 1))


def test_checkpointed_layers_have_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        made = model("qwen2", packed=True)
        if checkpointing:
            made.train().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        made(**batch(), fused_lm_head=True).log_probs.sum().backward()
        gradients.append([p.grad for p in made.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_whole_logits_of_response_tokens_come_in_the_order_of_the_rows():
    found = []
    for packed in (False, True):
        made = model("qwen2", packed=packed)
        found.append(response_logits(made, batch(), policy=made))
    (padded, labels), (packed, same) = found
    assert torch.equal(labels, same)
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "settings"), [("qwen2", {"attn_implementation": "eager"}), ("mamba", {}), ("lfm2", {})]
)
def test_a_model_that_is_not_known_to_pack_is_computed_with_its_padding(family, settings):
    made = tiny_model(family, seed=0, **settings)
    add_fused_lm_head(made)
    before = made(**batch(), fused_lm_head=True).log_probs
    pack_rows(made)
    assert not packs(made)
    assert torch.equal(made(**batch(), fused_lm_head=True).log_probs, before)


def test_rows_of_like_length_are_computed_together():
    assert Rows(lengths=(10, 3, 9, 8, 7), device=torch.device("cpu")).groups == ((0, 2, 3), (4,), (1,))


def test_a_kernel_that_reads_another_row_is_found_out(monkeypatch):
    shape = architecture(tiny_model("qwen2", seed=0).config)
    settings = {"dtype": torch.float32, "device": torch.device("cpu")}
    assert largest_error(by_groups, shape, **settings) == 0.0

    def one_row(query, key, value, *, rows, **kwargs):
        return by_groups(query, key, value, rows=Rows(lengths=(sum(rows.lengths),), device=rows.device), **kwargs)

    assert largest_error(one_row, shape, **settings) > packed_attention.TOLERANCE
    monkeypatch.setattr(packed_attention, "by_kernel", one_row)
    packed_attention.agrees.cache_clear()
    assert not packed_attention.agrees(shape, **settings)
    packed_attention.agrees.cache_clear()


def test_packing_and_unpacking_are_inverse():
    rows = batch()
    packing = Packing.of(rows["attention_mask"], model=None)
    assert packing.pack(rows["input_ids"]).shape == (1, sum(LENGTHS))
    following = packing.pack(rows["input_ids"])[:, 1:]
    kept = rows["input_ids"][:, 1:] * (rows["attention_mask"][:, 1:] == 1)
    assert torch.equal(packing.unpack_predictions(following), kept)
