"""Is a reward model faster in batches than one conversation at a time, with the same rewards?

A random classifier of Llama's kind scores conversations of uneven lengths, both ways in turn. Pass `--model DIR` for a
checkpoint of your own.

    python experiments/bench_rewards.py --rows 256 --repeats 5
"""

import argparse
import random
import tempfile
from pathlib import Path

import torch
from bench_tools import measure, spread

from cong.graph.resources import Resources
from cong.scoring.classifiers import BATCH, Classifier
from cong.scoring.reading import Encoded


def save_model(directory: Path, *, width: int, layers: int) -> Path:
    """Write a random classifier, and the tokenizer of the synthetic world."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

    from cong.synthetic.tokenizer import build_tokenizer
    from cong.synthetic.world import World

    build_tokenizer(World(), family="llama", directory=directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 64, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config.num_labels = 1
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
    return directory


def conversations(count: int, *, shortest: int, longest: int, vocabulary: int) -> list[Encoded]:
    drawn = random.Random(0)
    lengths = (drawn.randint(shortest, longest) for _ in range(count))
    return [Encoded(tuple(drawn.randrange(10, vocabulary) for _ in range(length))) for length in lengths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint of a sequence classifier; default is a random one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    for name, default in (("rows", 256), ("repeats", 5), ("shortest", 16), ("longest", 256), ("width", 256),
                          ("layers", 8), ("threads", 1)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = arguments.model or save_model(Path(name), width=arguments.width, layers=arguments.layers)
        resources = Resources(name="bench").changed(
            device=arguments.device, dtype=arguments.dtype, threads=arguments.threads
        )
        compare(Classifier(path, resources), arguments)


def compare(model: Classifier, arguments: argparse.Namespace) -> None:
    rows = conversations(
        arguments.rows, shortest=arguments.shortest, longest=arguments.longest, vocabulary=model.vocabulary
    )
    count, rates, rewards = sum(len(row.tokens) for row in rows), {1: [], BATCH: []}, {}
    unit = "tokens per CPU second" if arguments.device == "cpu" else "tokens/s"

    def job() -> int:
        rewards[model.rows_at_a_time] = model.rewards(rows)
        return count

    for _ in range(arguments.repeats):
        for model.rows_at_a_time in rates:
            run = measure(job, device=arguments.device)
            # CPU time on a CPU, so that other processes do not count.
            rates[model.rows_at_a_time].append(count / (run.cpu_seconds if arguments.device == "cpu" else run.seconds))
    for name, found in (("alone", rates[1]), ("in batches", rates[BATCH])):
        print(f"{name:<11} {spread(found)[0]:>10,.0f} {unit}  (from {min(found):,.0f} to {max(found):,.0f})")
    ratios = [together / alone for alone, together in zip(rates[1], rates[BATCH], strict=True)]
    median, lowest, highest = spread(ratios)
    print(f"in batches against alone, paired: {median:.2f} times ({lowest:.2f} to {highest:.2f})")
    gap = max(abs(a - b) for a, b in zip(rewards[1], rewards[BATCH], strict=True))
    print(f"largest difference of a reward: {gap:.1e}")


if __name__ == "__main__":
    main()
