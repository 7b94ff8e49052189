"""`call`, which torch.compile puts into its graph unopened. Imported only then, as torch._dynamo is slow to import."""

from typing import Any

import torch

from .graph_calls import CALLS


@torch.compiler.allow_in_graph
def call(name: str, *args: Any) -> Any:
    """Run when torch opens the graph: under its transforms, with symbols for the numbers that change."""
    return CALLS[name](*args)
