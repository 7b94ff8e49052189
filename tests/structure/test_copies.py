"""Identical runs of lines."""

from tests.structure import copies


def test_identical_runs(tree):
    eight, ten = ([f"{word}_{i} = {i}" for i in range(count)] for word, count in (("may", 8), ("copied", 10)))
    spaced = "\n\n# of its own\n".join(line.replace(" = ", "  =  ") for line in ten)
    made = tree(
        **{
            "tmkt/a.py": "\n".join([*eight, "first = 1", *ten, "last = 1"]),
            "tmkt/b.py": "\n".join([*eight, "other = 1"]) + "\n" + spaced,
        }
    )
    assert list(map(str, copies.identical_runs(made.of("tmkt")))) == ["10 lines: tmkt/a.py:10 and tmkt/b.py:10"]


def test_imports_and_spelled_out_parameters_are_no_runs(tree):
    names = "\n".join(f"    name_{i}," for i in range(10))
    file = f"from x import (\n{names}\n)\n\n\ndef f(\n{names}\n):\n    return 1\n"
    made = tree(**{"tmkt/a.py": file, "tmkt/b.py": file.replace("return 1", "return 2")})
    runs = copies.identical_runs(made.of("tmkt"), {("tmkt/a.py", 15), ("tmkt/b.py", 15)})
    assert runs == []
    assert [run.lines for run in copies.identical_runs(made.of("tmkt"))] == [12]
