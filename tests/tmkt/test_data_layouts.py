"""Layouts: the places where files are expected, and messages about missing and misplaced files."""

import pytest
from PIL import Image

from tmkt.data.layouts import IMAGES, list_cep, list_folders, list_n_omniglot
from tmkt.data.readers import READERS
from tmkt.errors import UserError


def touch(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def said(listing, root):
    return [f"{problem.path.relative_to(root).as_posix()}: {problem.what}" for problem in listing.problems]


def test_folders_of_any_depth_under_a_pattern(tmp_path):
    for name in ("a_1/x/y/1.png", "a_2/x/z/2.PNG", "b/x/y/3.png", "a_1/x/.hidden/4.png", "a_1/beside.txt"):
        touch(tmp_path / name)
    listing = list_folders(tmp_path / "a_*", IMAGES, "images")
    assert [(item.folder, item.id) for item in listing.files] == [("x/y", "1"), ("x/z", "2")]
    assert not listing.problems


@pytest.mark.parametrize("root", ["", "none", "none_*"])
def test_folders_that_are_not_there(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"images: '{root.replace('*', '.')}' is not a folder"):
        list_folders(root, IMAGES, "images")


def test_n_omniglot(tmp_path):
    good, one = "A/character01", "index,start,end\n0,10,20\n1,20,35\n"
    for name, text in {
        f"{good}/0001.aedat4": "",
        f"{good}/0001.csv": one,
        "A/character02/0002.aedat4": "",
        "A/character03/0003.aedat4": "",
        "A/character03/0003.csv": "index,start,end\n0,ten,20\n",
        "A/character04/0004.aedat4": "",
        "A/character04/0004.csv": "index,start,end\n",
    }.items():
        touch(tmp_path / name, text)
    listing = list_n_omniglot(tmp_path, READERS, "recordings")
    assert [(item.folder, item.id, item.interval_us) for item in listing.files] == [
        (good, "0001_01", (10, 20)),
        (good, "0001_02", (20, 35)),
    ]
    assert said(listing, tmp_path) == [
        "A/character02: holds 1 .aedat4 and 0 .csv files; expected one of each",
        "A/character03/0003.csv: is no table of index, start, end (invalid literal for int() with base 10: 'ten')",
        "A/character04/0004.csv: names no drawer; expected a line for each",
    ]


def test_cep(tmp_path):
    touch(tmp_path / "pathFile.csv", "head\n0    people man\n1    nothing known\n2    fish shark\n")
    for name in ("00000", "00001", "00002", "00003", "four"):
        touch(tmp_path / f"data/MAT/img/{name}.mat")
        (tmp_path / "data/img").mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / f"data/img/{name}.jpg")
    for suffixes, sub in ((READERS, "data/MAT/img"), (IMAGES, "data/img")):
        listing = list_cep(tmp_path, suffixes, "recordings")
        assert [(item.folder, item.id) for item in listing.files] == [("people", "00000"), ("fish", "00002")]
        assert [line.partition(": ")[0] for line in said(listing, tmp_path)] == [
            f"{sub}/{path.name}"
            for path in sorted((tmp_path / sub).iterdir())
            if path.stem in ("00001", "00003", "four")
        ]
    with pytest.raises(UserError, match="is not the folder of CEP-DVS"):
        list_cep(tmp_path / "data", READERS, "recordings")
