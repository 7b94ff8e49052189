"""YAML as people write settings: plain values, each key once, nothing shared.

An alias lets a file of 300 bytes expand to gigabytes or contain itself, and of two equal keys the last would silently
win. Both are refused, so that settings of strangers can be read.
"""

from typing import Any

import yaml

from .errors import UserError


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"the alias *{event.anchor} is not taken; write its value out", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next(key for i, key in enumerate(keys) if key in keys[:i])
            raise yaml.MarkedYAMLError(problem=f"the key {twice} stands there twice", problem_mark=node.start_mark)
        return mapping


def parse_yaml(text: str, subject: str) -> Any:
    """Parse `text`. Raises UserError, which begins with `subject`, for text that is not YAML or holds an alias."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise UserError(f"{subject}: is nested too deeply to be settings") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits, an invalid date
        raise UserError(f"{subject}: is not YAML as settings need it ({' '.join(str(error).split())})") from error
