"""The one exception that a user's mistake becomes: the command line prints it as one line and exits with code 2."""

import importlib.util


class UserError(Exception):
    """Something that the user can mend: a wrong argument, a missing file, a store that cannot be written."""


class NothingLeft(UserError):
    """A stage's inputs hold nothing to work on; a run continues without the cells that say they may lack a result."""


def require(package: str, *, extra: str) -> None:
    """Raise `UserError` that names the extra of `cong` when a package is not installed; it is not imported."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"this needs {package}: pip install 'cong[{extra}]'")
