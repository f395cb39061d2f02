"""Table 1: every method of the paper, weak-to-strong and for one model

Weak-to-strong rows change the strong model and are compared with it; the rows for one model change the weak model.

    cong run experiments/methods.py --set seeds=0,1,2
"""

from collections.abc import Iterator

from cong import methods
from cong.experiment import Cell, Results
from cong.report import Block, Table
from cong.report.statistics import best_row, estimate, select, values_of

WEAK_TO_STRONG = ("Base", "Weak SFT (pre)", "Weak SFT (post)", "WeakTeacher", "AuxConf", "WSPO", "ConG-S", "ConG")
ONE_MODEL = ("Base", "DPO", "ORPO", "SimPO", "ConG-S (self)", "ConG (self)")


def cells(
    scale,
    *,
    alpha: float | None = None,
    beta: float = 0.5,
    seeds: tuple[int, ...] = (0,),
    family: str = "qwen",
    weak: str = "3B",
    strong: str = "7B",
) -> list[Cell]:
    alpha = scale.alpha[family] if alpha is None else alpha
    found = []
    for seed in seeds:
        t = methods.transition(family, weak=weak, strong=strong, scale=scale, seed=seed)
        common = {"seed": seed, "family": family, "weak": weak, "strong": strong, "alpha": alpha, "beta": beta}
        for setting, transition, rows in (
            ("weak to strong", t, _weak_to_strong(t, alpha, beta)),
            ("one model", t.self_aligned, _one_model(t.self_aligned, alpha, beta)),
        ):
            for name, model in rows.items():
                stage = methods.evaluate(transition, model)
                found.append(Cell(stage=stage, axes={"method": name, "setting": setting, **common}))
    return found


def _weak_to_strong(t: methods.Transition, alpha: float, beta: float) -> dict:
    return {
        "Base": methods.base(t),
        "Weak SFT (pre)": methods.weak_sft_pre(t),
        "Weak SFT (post)": methods.weak_sft_post(t),
        "WeakTeacher": methods.weak_teacher(t),
        "AuxConf": methods.aux_conf(t),
        "WSPO": methods.wspo(t),
        "ConG-S": methods.cong_s(t, alpha=alpha),
        "ConG": methods.cong(t, alpha=alpha, beta=beta),
    }


def _one_model(t: methods.Transition, alpha: float, beta: float) -> dict:
    return {
        "Base": methods.base(t),
        "DPO": methods.dpo(t),
        "ORPO": methods.orpo(t),
        "SimPO": methods.simpo(t),
        "ConG-S (self)": methods.cong_s(t, alpha=alpha),
        "ConG (self)": methods.cong(t, alpha=alpha, beta=beta),
    }


def report(results: Results) -> Iterator[Block]:
    for setting, names in (("weak to strong", WEAK_TO_STRONG), ("one model", ONE_MODEL)):
        found = select(results, setting=setting)
        columns = [
            [estimate(select(found, method=name), measure) for name in names]
            for measure in ("reward", "win_rate", "tokens")
        ]
        rows = [(name, *(str(column[index]) for column in columns)) for index, name in enumerate(names)]
        seeds = len(values_of(results, "seed"))
        over = "Student's t over seeds" if seeds > 1 else "bootstrap over prompts"
        yield Table(
            title=f"Methods, {setting}",
            columns=("method", "reward, greedy", "wins against base", "tokens"),
            rows=rows,
            best=(None, best_row(columns[0]), best_row(columns[1]), None),
            caption=f"Mean and 95 % interval ({over}); {seeds} seed{'s' if seeds > 1 else ''}.",
        )
