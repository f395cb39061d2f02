"""Trained models of a store as checkpoints for others: found, written out with a model card, and sent to the hub.

model = find_model(Path("runs"), "quickstart:method=ConG,seed=0")      # or a stage: "DPO/beta=0.5,lr=5e-05-1a2b3c4d"
export(model, Path("my-model"))
"""

from cong.publish.export import check_target, export
from cong.publish.find import find_model
from cong.publish.hub import push
from cong.publish.trained import TrainedModel

__all__ = ["TrainedModel", "check_target", "export", "find_model", "push"]
