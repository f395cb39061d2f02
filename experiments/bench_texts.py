"""What the benchmarks of training learn from: texts of the synthetic world, and a tiny model."""

import random
from dataclasses import dataclass
from pathlib import Path

from cong.data import PAIRS, RESPONSES, write_rows
from cong.graph.stage import Context, Stage
from cong.synthetic.world import World, make_documents


@dataclass(frozen=True, kw_only=True)
class Texts(Stage):
    """Documents of the synthetic world as responses, and as pairs with other documents' responses rejected.

    A response is made of 1 to `joined` documents, most of few.
    """

    count: int
    joined: int = 1

    def run(self, ctx: Context) -> None:
        documents = make_documents(World(), count=2 * self.count * self.joined, seed=0)
        prompts = [document.prompt for document in documents[: self.count]]
        texts, draw = iter(documents), random.Random(0)
        responses = [
            " ".join(next(texts).response for _ in range(min(int(draw.paretovariate(1)), self.joined)))
            for _ in range(2 * self.count)
        ]
        rows = [{"prompt_id": f"{i:06d}", "prompt": prompt} for i, prompt in enumerate(prompts)]
        sides = zip(rows, responses[: self.count], responses[self.count :], strict=True)
        pairs = [row | {"chosen": chosen, "rejected": rejected} for row, chosen, rejected in sides]
        good = {"error": None, "finish_reason": "stop"}
        write_rows(ctx.out / PAIRS, pairs)
        write_rows(ctx.out / RESPONSES, [row | {"response": row["chosen"]} | good for row in pairs])


def save_model(directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cong.synthetic.models import build_config
    from cong.synthetic.tokenizer import build_tokenizer

    build_tokenizer(World(), family="qwen", directory=directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(build_config("qwen", "7B", tokenizer)).save_pretrained(directory)
