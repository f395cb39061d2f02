"""Imported once by the process that others are forked from: the large libraries."""

from cong.graph.libraries import import_libraries

import_libraries(
    "pytest", "psutil", "datasets", "matplotlib.figure", "mlflow", "mlflow.store.tracking.sqlalchemy_store",
    "transformers.trainer", "trl.trainer.dpo_trainer", "trl.trainer.sft_trainer", "cong.training.trainers",
    "cong.training.callbacks", "cong.decoding.slots",
)  # fmt: skip
