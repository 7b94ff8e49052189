"""`call`, which torch.compile puts into its graph as it is. Imported only then: torch._dynamo is slow to import."""

from typing import Any

import torch

from .graph_calls import CALLS


@torch.compiler.allow_in_graph
def call(name: str, *args: Any) -> Any:
    """Runs when torch opens up the graph: under its transforms, with symbols for the numbers that change."""
    return CALLS[name](*args)
