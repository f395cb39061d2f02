"""Contrastive Weak-to-Strong Generalization (ConG) as experiments that run on a laptop or on a Ray cluster."""

__version__ = "0.2.0"
