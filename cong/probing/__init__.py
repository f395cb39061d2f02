"""Probes on hidden states: which of its own answers a strong model knows, which labels of a weak one can be trusted."""

from cong.probing.choose import Chance, Mixture, TopShare
from cong.probing.probe import Labelled, Probe
from cong.probing.quality import ProbeQuality
from cong.probing.smoothing import Smoothed
from cong.probing.states import HiddenStates

__all__ = ["Chance", "HiddenStates", "Labelled", "Mixture", "Probe", "ProbeQuality", "Smoothed", "TopShare"]
