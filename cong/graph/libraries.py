"""Imports of large libraries, in less time.

torch, transformers and TRL make half a million objects when they are imported, and Python looks through all of them for
garbage time and again meanwhile: a fourth of the seconds of an import, which every process of a run spends once.
"""

import gc
import importlib
import sys


def import_libraries(*names: str) -> None:
    """Import modules without a search for garbage, then or later, among what they make.

    Call it before models are loaded: what is alive by then and refers to itself stays in memory to the end.
    """
    missing = [name for name in names if name not in sys.modules]
    if not missing:
        return
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for name in missing:
            importlib.import_module(name)
    finally:
        if collecting:
            gc.enable()
    gc.freeze()
