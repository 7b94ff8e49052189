"""Assertions that may not run."""

from tests.structure import assertions

CONDITIONAL = """
def test_both(x):
    if x:
        assert x
    else:
        with pytest.raises(ValueError):
            f(x)
    for y in x:
        assert y

def test_one(x):
    if x:
        assert x
    elif x.y:
        np.testing.assert_allclose(x, 1)
    def inner():
        if x:
            return
        else:
            torch.testing.assert_close(x, 1)

def test_skipped(x):
    if not x:
        pytest.skip("no x")
    try:
        f(x)
    except ValueError:
        assert x

if __name__ == "__main__":
    assert 1
"""


def test_conditional_assertions(tree):
    made = tree(**{"tests/tmkt/test_a.py": CONDITIONAL, "tests/b.cpp": "int main() {}", "tmkt/a.py": CONDITIONAL})
    lines = CONDITIONAL.splitlines()
    found = [place.partition(":") for place in assertions.conditional_assertions(made)]
    assert {path for path, _, _ in found} == {"tests/tmkt/test_a.py"}
    assert [lines[int(line) - 1].strip() for _, _, line in found] == ["elif x.y:", "if x:", "except ValueError:"]
