"""From a GGUF file to a checkpoint in float32: weights, tokenizer, chat template and end tokens.

    convert(Path("SmolLM2-135M-Instruct.Q4_1.gguf"), Path("checkpoint"))

transformers dequantizes the weights. What it leaves out of the tokenizer, whether a text begins with BOS, is read from
the file: without it Gemma writes nonsense.
"""

from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.models.chat import check_vocabulary

_BEGINS = "tokenizer.ggml.add_bos_token"


def convert(file: Path, target: Path, *, chat_template: str | None = None) -> None:
    """Write a checkpoint into `target`; `chat_template` is for a file that holds none.

    Raises `UserError` when transformers cannot read the file.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, tokenizer = _read(file)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise UserError(f"{file} cannot be converted: {type(error).__name__}: {error}") from error
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    check_vocabulary(tokenizer, target)
    for path in target.iterdir():
        path.chmod(0o644)


def _read(file: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    model = _plain(AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32))
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.add_bos_token = _begins_with_bos(file)
    return model, tokenizer


def _plain(loaded: Any) -> Any:
    """Return the same model without the mark of a quantized one, which transformers refuses to save."""
    config = loaded.config
    # What only this machine knows, and what says that the weights are those of a GGUF file.
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        vars(config).pop(name, None)
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    return plain


def _begins_with_bos(file: Path) -> bool:
    from gguf import GGUFReader

    field = GGUFReader(file).get_field(_BEGINS)
    return bool(field.contents()) if field is not None else False
