"""A reader of C++: functions, parameters, loops and calls, from tokens. It knows no types and expands no macros."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_PREPROCESSOR = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)
_TOKEN = re.compile(
    r"""\s+|(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[A-Za-z_]\w*|\.?\d(?:[\w.']|(?<=[eEpP])[+-])*|::|->|.)""",
    re.DOTALL | re.VERBOSE,
)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
# Words before a parenthesis that are not a function's name.
_NO_NAMES = {"__attribute__", "__launch_bounds__", "alignas", "decltype", "noexcept", "requires", "explicit"}
_CLASSES = {"class", "struct", "union"}
_STATEMENTS = {"if", "for", "while", "switch", "return"}


class Token(NamedTuple):
    text: str
    line: int


class CppFunction(NamedTuple):
    name: str  # with its classes
    line: int
    lines: int
    parameters: int
    head: list[str]
    body: list[Token]


def includes(text: str) -> list[str]:
    """Return the paths between quotes, as written."""
    return _INCLUDE.findall(text)


def tokens(text: str) -> list[Token]:
    """Return the tokens, without comments and preprocessor lines."""
    text = _PREPROCESSOR.sub(lambda match: "\n" * match[0].count("\n"), text)
    found, line = [], 1
    for match in _TOKEN.finditer(text):
        if match["text"]:
            found.append(Token(match["text"], line))
        line += match[0].count("\n")
    return found


def functions(text: str) -> list[CppFunction]:
    """Return functions of namespaces and classes; lambdas and local classes are part of the function around them."""
    code = tokens(text)
    words = [token.text for token in code]
    found: list[CppFunction] = []
    scopes: list[str] = []  # names of the classes around; "" for a namespace
    at = head = 0
    while at < len(code):
        word = words[at]
        if word in "([":
            at = closing(words, at)
        elif word == "{":
            signature = _signature(words[head:at])
            if signature is None:
                at = closing(words, at)  # an initialiser, an enum
            elif isinstance(signature, str):
                scopes.append(signature)
                head = at + 1
            else:
                end = closing(words, at)
                name = ".".join([*filter(None, scopes), signature[0]])
                lines = code[end].line - code[head].line + 1
                found.append(
                    CppFunction(name, code[head].line, lines, signature[1], words[head:at], code[at + 1 : end])
                )
                at, head = end, end + 1
        elif word == "}":
            scopes.pop()
            head = at + 1
        elif word == ";" or (word == ":" and words[at - 1] in ("public", "private", "protected")):
            head = at + 1
        at += 1
    return found


def closing(words: Sequence[str], at: int) -> int:
    """Return the index of the bracket that closes the one at `at`."""
    opening, depth = words[at], 0
    for i in range(at, len(words)):
        depth += (words[i] == opening) - (words[i] == _CLOSING[opening])
        if depth == 0:
            return i
    raise ValueError(f"{opening} is not closed, after {' '.join(words[max(at - 10, 0) : at])}")


def _signature(head: list[str]) -> str | tuple[str, int] | None:
    """Return the meaning of the words before an opening brace: a class's name, or "" for a namespace; (name,
    parameters) of a function; None for anything else."""
    head = _without_templates(head)
    if "namespace" in head or (head[:1] == ["extern"] and len(head) == 2):
        return ""
    if head[:1] == ["enum"]:
        return None
    parameters = _parameters_of(head)
    if head and head[0] in _CLASSES and parameters is None:
        return next(word for word in _top_level(head[1:]) if word.isidentifier() and word not in _NO_NAMES)
    if parameters is None or ("=" in _top_level(head) and "operator" not in head):
        return None
    begin, end = parameters
    if ":" in head[end:] and head[-1] not in ")}":
        return None  # a member that a constructor initialises with braces
    name = head[begin - 1]
    if "operator" in head[:begin]:
        name = "".join(head[head.index("operator") : begin])
    return name, _count(head[begin + 1 : end])


def _without_templates(head: list[str]) -> list[str]:
    while head[:1] == ["template"]:
        depth = 0
        for i, word in enumerate(head):
            depth += (word == "<") - (word == ">")
            if word == ">" and depth == 0:
                head = head[i + 1 :]
                break
        else:
            return head
    return head


def _parameters_of(head: list[str]) -> tuple[int, int] | None:
    """Return the indices of the parentheses around a function's parameters."""
    at = 0
    while at < len(head):
        if head[at] == "(":
            end = closing(head, at)
            before = head[at - 1] if at else ""
            if before == "operator":
                at = end + 1  # operator()
                continue
            if (before.isidentifier() or "operator" in head[:at]) and before not in _NO_NAMES:
                return at, end
            at = end
        at += 1
    return None


def _top_level(words: list[str]) -> list[str]:
    """Return the words outside brackets."""
    found, at = [], 0
    while at < len(words):
        if words[at] in _CLOSING:
            at = closing(words, at)
        else:
            found.append(words[at])
        at += 1
    return found


def _count(parameters: list[str]) -> int:
    if parameters in ([], ["void"]):
        return 0
    depth, count = 0, 1
    for word in parameters:
        depth += (word in "([{<") - (word in ")]}>")
        count += word == "," and depth == 0
    return count


def calls(body: list[Token]) -> Iterator[tuple[str, bool]]:
    """Return (name, whether inside a loop) of every call."""
    words = [token.text for token in body]
    in_loop = [False] * len(words)
    for at, word in enumerate(words):
        if word in ("for", "while") and words[at + 1 : at + 2] == ["("]:
            begin = closing(words, at + 1) + 1
            end = _statement_end(words, begin)
            in_loop[begin:end] = [True] * (end - begin)
    for at, word in enumerate(words):
        if word.isidentifier() and word not in _STATEMENTS and words[_after_arguments(words, at + 1)] == "(":
            yield word, in_loop[at]


def _after_arguments(words: list[str], at: int) -> int:
    """Return the index after a call's template arguments at `at`, if any: for the comparison a < b it is `at`."""
    depth = 0
    for i in range(at, len(words)):
        depth += (words[i] == "<") - (words[i] == ">")
        if depth == 0:
            return min(i + (i > at), len(words) - 1)
        if not (words[i] in "<>,&*::" or words[i].isidentifier() or words[i].isdigit()):
            return at
    return len(words) - 1


def _statement_end(words: list[str], at: int) -> int:
    """Return the index after the statement that begins at `at`, which is a block or ends at its semicolon."""
    while at < len(words):
        if words[at] == "{":
            return closing(words, at) + 1
        if words[at] == ";":
            return at + 1
        at = closing(words, at) + 1 if words[at] in "([" else at + 1
    return at
