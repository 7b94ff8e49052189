"""Print every measure with its limit, then the places that it counted."""

import os
from pathlib import Path

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported, so that its kernels run on the CPU

from .measures import MEASURES
from .sources import Tree


def main() -> None:
    tree = Tree(Path(__file__).parents[2])
    results = [(measure, measure.take(tree)) for measure in MEASURES]
    width = max(len(measure.name) for measure in MEASURES)
    print(f"{'measure':{width}}  value  limit")
    for measure, result in results:
        value = "-" if result.value is None else result.value
        above = "" if result.value is None or result.value <= measure.limit else "  above"
        print(f"{measure.name:{width}}  {value:>5}  {measure.limit:>5}{above}")
    for measure, result in results:
        if result.places or result.notes:
            print(f"\n{measure.name}")
            print(*(f"  {line}" for line in (*result.places, *result.notes)), sep="\n")


if __name__ == "__main__":
    main()
