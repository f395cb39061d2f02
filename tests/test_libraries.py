"""Large libraries are imported without a search for garbage, which goes on afterwards."""

import gc
import sys
from pathlib import Path

import pytest

from cong.graph.libraries import import_libraries


def given(path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (path / "large_library.py").write_text(f"import gc\n\ncollecting = gc.isenabled()\n{text}\n")
    monkeypatch.syspath_prepend(path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def test_no_garbage_is_looked_for_while_a_library_is_imported(tmp_path, monkeypatch):
    given(tmp_path, "made = [[]]", monkeypatch)
    import_libraries("large_library")
    library = sys.modules["large_library"]
    assert not library.collecting
    assert gc.isenabled()
    assert not [item for item in gc.get_objects() if item is library.made]


def test_garbage_is_looked_for_again_after_an_import_that_failed(tmp_path, monkeypatch):
    given(tmp_path, "1 / 0", monkeypatch)
    with pytest.raises(ZeroDivisionError):
        import_libraries("large_library")
    assert gc.isenabled()


def test_what_is_imported_already_leaves_later_objects_to_the_search():
    import_libraries("json")
    kept = [[]]
    assert [item for item in gc.get_objects() if item is kept]
