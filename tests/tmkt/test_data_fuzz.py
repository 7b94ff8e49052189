"""A slice of tests/fuzz_readers.py: damaged files of every format are read or named."""

import fuzz_readers
import pytest


@pytest.mark.parametrize("name", fuzz_readers.FORMATS)
def test_damaged_files_are_read_or_named(name, request):
    if name == "aedat4":
        request.getfixturevalue("shared_data")  # skips, where there is no real file
    files = 20 if name == "aedat4" else 200  # the real file is large
    report = fuzz_readers.fuzz(name, files)
    assert report.good, (report.failures[:5], report.peak_mb)
    assert report.outcomes["named"] > files / 4
    assert report.outcomes["named"] < files  # not every damage shows
