"""Reports: an experiment turns results into blocks; this package renders them as one HTML page, Markdown and pictures.

def report(results):
    yield Table(title="Methods", columns=("method", "reward"), rows=[("ConG-S", "1.98 ± 0.03")])
    yield Figure(title="Reward against alpha", name="reward_alpha", draw=lambda axes: axes.plot(alphas, rewards))
"""

from cong.report.blocks import Block, Browser, Figure, Links, Responses, Table, Text
from cong.report.page import Report, write_report
from cong.report.tables import Better, Entry, ranked_table

__all__ = [
    "Better",
    "Block",
    "Browser",
    "Entry",
    "Figure",
    "Links",
    "Report",
    "Responses",
    "Table",
    "Text",
    "ranked_table",
    "write_report",
]
