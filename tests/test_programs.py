"""Programs in responses: fences are paired line by line, and what is no Python gives way to what is."""

import textwrap

import pytest

from cong.data.programs import is_python, program_of
from cong.graph.fingerprint import canonical, fields_of
from cong.scoring import AnswerMatch, UnitTests

F, CODE = "`" * 3, "def f(x):\n    return 2 * x\n"


def block(language: str, code: str = CODE, fence: str = F) -> str:
    return f"{fence}{language}\n{code}{fence}\n"


RESPONSES = {
    "another spelling": block("Python3"),
    "attributes": block("{.python .numberLines}"),
    "spaces": block("  py  "),
    "tildes": block("python", fence="~~~"),
    "longer fences": block("python", fence="````"),
    "json before": f"Input:\n{block('json', '[1, 2]')}\nCode:\n{block('python')}It doubles.",
    "shell after": f"{block('python')}\nRun it:\n{block('sh', 'python f.py')}",
    "output without a language": f"{block('python')}\nIt prints\n{block('', '4 is 2 times 2' + chr(10))}",
    "text between": f"{block('python', 'import math' + chr(10))}\nThen:\n{block('python')}The end.",
    "in a list": f"1. Code:\n\n{textwrap.indent(block('python'), '   ')}\n2. Done.",
    "behind a sentence": f"Here it is: {F}python\n{CODE}{F}",
    "closed behind the code": f"{F}python\n{CODE.rstrip()}{F}\nDone.",
    "closed with words": f"{F}python\n{CODE}{F} Done",
    "never closed": f"Sure:\n{F}python\n{CODE}",
    "not closed before the next": f"{F}text\nwords only\n{block('python')}",
    "windows lines": block("python").replace("\n", "\r\n"),
    "no fence": CODE,
    "a language that is not known": block("code"),
    "a wrong attempt first": f"{block('python', 'def f(x) return x' + chr(10))}No:\n{block('python')}",
}


@pytest.mark.parametrize("name", RESPONSES)
def test_the_program_of_a_response_runs(name: str) -> None:
    space: dict = {}
    exec(program_of(RESPONSES[name]), space)  # of this repository's own making
    assert space["f"](21) == 42


def test_a_fence_inside_a_docstring_ends_no_block() -> None:
    code = f'def f(x):\n    """Double.\n\n    {F}\n    f(1)\n    {F}\n    """\n    return 2 * x\n'
    assert program_of(block("python", code)) == code


def test_a_response_of_another_language_alone_keeps_its_code() -> None:
    assert program_of(f"Sorry:\n{block('rust', 'fn main() {}' + chr(10))}") == "fn main() {}\n"


@pytest.mark.parametrize("code", ["def f(:", "\0", "(" * 5_000])
def test_what_cannot_be_parsed_is_no_python(code: str) -> None:
    assert not is_python(code)


@pytest.mark.parametrize(
    ("judge", "versions"), [(AnswerMatch(), {"version": 2}), (UnitTests(), {"version": 2, "verdicts": 2})]
)
def test_scores_made_by_earlier_rules_are_not_taken_for_these(judge, versions) -> None:
    assert canonical(judge) == {"class": type(judge).__name__, **versions, **fields_of(judge)}
