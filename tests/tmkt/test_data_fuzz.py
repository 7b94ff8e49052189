"""A part of tests/fuzz_readers.py: every damaged file is read, or its error names it."""

import fuzz_readers
import pytest


@pytest.mark.parametrize("name", fuzz_readers.FORMATS)
def test_damaged_files_are_read_or_named(name, request):
    if name == "aedat4":
        request.getfixturevalue("shared_data")  # skips without the real file
    files = 20 if name == "aedat4" else 200  # the real file is large
    report = fuzz_readers.fuzz(name, files)
    assert report.good, (report.failures[:5], report.peak_mb)
    assert report.outcomes["named"] > files / 4
    assert report.outcomes["named"] < files  # not every damage shows
