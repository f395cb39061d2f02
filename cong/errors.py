"""The one exception that a user's mistake becomes: the command line prints it as one line and exits with code 2."""

import importlib.util


class UserError(Exception):
    """Something that the user can mend: a wrong argument, a missing file, a store that cannot be written."""


class NothingLeft(UserError):
    """A stage's inputs hold nothing to work on; a run goes on without the cells that say they may lack a result."""


def require(module: str, *, extra: str) -> None:
    """Raise `UserError` when a package is missing that only some need: it names the extra that brings it."""
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{module} is not installed: pip install 'cong[{extra}]'")
