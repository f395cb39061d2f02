"""`RatingSample`: pairs for people to rate, as one HTML page and as CSV, without a word about who wrote what.

    RatingSample(methods=(("ConG-S", comparison), ("ConG", other)), share=0.1)

The same prompts are drawn for every method; each method stands on side A as often as on side B, give or take one; the
order is shuffled. `rating.html` and `rating.csv` go to the raters, `key.parquet` stays: it says what each item is.
"""

import csv
import hashlib
import io
import math
import random
from dataclasses import dataclass

from cong.data import Row, read_rows, write_rows
from cong.errors import UserError
from cong.evaluation.compare import COMPARISONS, Compare
from cong.graph.journal import replace_text
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work

PAGE = "rating.html"
TABLE = "rating.csv"
KEY = "key.parquet"
RATINGS = ("A", "tie", "B")
_ITEM_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class RatingSample(Stage):
    """A share of the prompts that all methods were compared on, against one baseline."""

    methods: tuple[tuple[str, Compare], ...]
    share: float = 0.1
    seed: int = 0
    title: str = "Which answer is better?"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share = {self.share} is not in (0, 1]")
        names = [name for name, _ in self.methods]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"methods = {names} need names, each once")

    def label(self) -> str:
        return f"{self.share:g},{len(self.methods)}_methods,seed={self.seed}"

    @property
    def sample_id(self) -> str:
        """What pages, and the ratings made with them, are known by."""
        return self.fingerprint[:_ITEM_DIGITS]

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        compared = {name: _good_rows(read_rows(ctx.path(one) / COMPARISONS)) for name, one in self.methods}
        items = draw(compared, share=self.share, seed=self.seed, name=self.sample_id)
        if not items:
            raise UserError(f"{self.title!r}: no prompt was compared for all of {', '.join(compared)}")
        write_rows(ctx.out / KEY, items)
        replace_text(ctx.out / TABLE, as_csv(items, sample=self.sample_id))
        replace_text(ctx.out / PAGE, as_page(items, sample=self.sample_id, title=self.title))
        ctx.summary(items=len(items), prompts=len({item["prompt_id"] for item in items}))


def draw(compared: dict[str, dict[str, Row]], *, share: float, seed: int, name: str) -> list[Row]:
    """Return the items in the order in which they are shown. `compared` holds rows by method and prompt_id."""
    common = sorted(set.intersection(*(set(rows) for rows in compared.values())))
    chosen = random.Random(f"prompts/{seed}").sample(common, math.ceil(share * len(common)))
    items = []
    for method, rows in compared.items():
        sides = (["A", "B"] * len(chosen))[: len(chosen)]
        random.Random(f"sides/{seed}/{method}").shuffle(sides)
        items += [_item(method, rows[prompt], side, name) for prompt, side in zip(chosen, sides, strict=True)]
    random.Random(f"order/{seed}").shuffle(items)
    return items


def as_csv(items: list[Row], *, sample: str) -> str:
    """Return the items as a table with an empty column `rating`, for A, tie or B."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("sample", "item", "rater", "rating", "prompt", "A", "B"))
    writer.writerows((sample, item["item"], "", "", item["prompt"], item["a"], item["b"]) for item in items)
    return buffer.getvalue()


def as_page(items: list[Row], *, sample: str, title: str) -> str:
    """Return the self-contained page."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("cong.evaluation.rating", "."), autoescape=True)
    shown = [{name: item[name] for name in ("item", "prompt", "a", "b")} for item in items]
    return environment.get_template("page.html").render(title=title, sample={"id": sample, "items": shown})


def _good_rows(rows: list[Row]) -> dict[str, Row]:
    return {row["prompt_id"]: row for row in rows if row["error"] is None}


def _item(method: str, row: Row, side: str, name: str) -> Row:
    a, b = (row["response"], row["baseline_response"]) if side == "A" else (row["baseline_response"], row["response"])
    digest = hashlib.sha256(f"{name}/{method}/{row['prompt_id']}".encode()).hexdigest()
    return {
        "item": digest[:_ITEM_DIGITS],
        "method": method,
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "a": a,
        "b": b,
        "side": side,
        "preference": row["preference"],
    }
