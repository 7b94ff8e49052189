"""The tests named in docs/faults.md exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_is_named_exists():
    file = None
    named = 0
    for row in (ROOT / "docs/faults.md").read_text(encoding="utf-8").splitlines():
        for path, name in re.findall(r"`(?:([\w/]+\.py)::)?(test_\w+)`", row):
            file = path or file
            assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE), row
            named += 1
    assert named > 80
