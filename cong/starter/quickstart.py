"""A first experiment: what contrastive weak-to-strong generalization gains, on the synthetic world

Change what is compared, add an axis, or take models of your own; what is finished is found again in the store.

    cong run quickstart.py
    cong run quickstart.py --set seeds=0,1,2 --set alphas=0.2,0.4,0.8
"""

from cong import methods
from cong.experiment import Cell
from cong.report import Table
from cong.report.statistics import estimate, select, values_of


def cells(scale, *, alphas: tuple[float, ...] = (0.4,), beta: float = 0.5, seeds: tuple[int, ...] = (0,)):
    made = []
    for seed in seeds:
        t = methods.transition("qwen", weak="1.5B", strong="3B", scale=scale, seed=seed)
        models = {"Base": methods.base(t), "Weak SFT (post)": methods.weak_sft_post(t)}
        for alpha in alphas:
            models[f"ConG-S, alpha {alpha:g}"] = methods.cong_s(t, alpha=alpha)
            models[f"ConG, alpha {alpha:g}"] = methods.cong(t, alpha=alpha, beta=beta)
        made += [
            Cell(stage=methods.evaluate(t, model), axes={"method": name, "seed": seed})
            for name, model in models.items()
        ]
    return made


def report(results):
    rows = [(str(name), str(estimate(select(results, method=name), "reward"))) for name in values_of(results, "method")]
    yield Table(title="Reward on held-out prompts", columns=("method", "reward"), rows=rows)
