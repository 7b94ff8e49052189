"""File layouts of published data sets, and their missing or misplaced files.

Every layout returns `ClassFolders`: the files, each with the set's own name of its class, and the problems found.
Loading stops at the first problem; `tmkt data check` reports all.
"""

import csv
import re
from collections.abc import Callable, Collection, Iterator
from glob import glob
from pathlib import Path
from typing import NamedTuple

from ..config import EventsConfig
from ..errors import UserError
from .bundled import ClassMap, load_class_map
from .readers import COLUMNS_FILE, READERS, TEXT, columns_file
from .strokes import STROKES

IMAGES = (".bmp", ".jpeg", ".jpg", ".png")


class LabelledFile(NamedTuple):
    """A file and the folder of its class.

    interval_us: if a file holds several recordings, the time of this one's first event, and its end. part: "train" or
    "test", if a list that comes with the set says so.
    """

    folder: str
    id: str
    path: Path
    interval_us: tuple[int, int] | None = None
    part: str = ""


class Problem(NamedTuple):
    """A fault, in words that follow the path."""

    path: Path
    what: str
    folder: str = ""  # the set's own name of its class, if it is in one

    def __str__(self) -> str:
        """Escape unprintable characters and those that a terminal would obey, because file names may hold any."""
        text = f"{self.path} {self.what}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class ClassFolders(NamedTuple):
    """Contents of a set's class folders."""

    files: list[LabelledFile]
    problems: list[Problem]

    def classes(self) -> ClassMap:
        """Return the classes of the folders in order, including those without a file."""
        named = {file.folder for file in self.files} | {p.folder for p in self.problems}
        return ClassMap.same(sorted(named - {""}))


def list_folders(root: str | Path, suffixes: Collection[str], what: str) -> ClassFolders:
    """<class>/<id>.<ext> under `root`; a class folder may lie deeper, and is then named by its path from `root`.

    `root` may be a pattern (`dvs_*`), whose matches are combined. Hidden files and files outside class folders are
    ignored.
    """
    listing = ClassFolders([], [])
    for top in _roots(root, what):
        folders = sorted(p for p in top.rglob("*") if p.is_dir() and not _hidden(p, top))
        if not folders:
            raise UserError(
                f"{what}: {top} holds no class folders; expected <class>/<id> with one of {_join(suffixes)}"
            )
        for folder in folders:
            name = folder.relative_to(top).as_posix()
            entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
            if not entries:
                listing.problems.append(Problem(folder, "is empty: a class folder holds files <id>.<ext>", name))
            for path in entries:
                _add_file(listing, path, name, suffixes, what)
    return listing


def list_n_omniglot(root: str | Path, suffixes: Collection[str], what: str) -> ClassFolders:
    """N-Omniglot as published (Li et al. 2022): <alphabet>/<character>/ with one .aedat4 of all 20 drawers.

    A .csv beside it, named by the character's number, has one line per drawer: index, first and last time in us.
    """
    listing = ClassFolders([], [])
    for top in _roots(root, what):
        folders = sorted({p.parent for p in top.glob("*/*/*")} | {p for p in top.glob("*/*") if p.is_dir()})
        if not folders:
            raise UserError(f"{what}: {top} holds no <alphabet>/<character>/ folders of N-Omniglot")
        for folder in folders:
            name = folder.relative_to(top).as_posix()
            tables, recordings = sorted(folder.glob("*.csv")), sorted(folder.glob("*.aedat4"))
            if len(tables) != 1 or len(recordings) != 1:
                found = f"{len(recordings)} .aedat4 and {len(tables)} .csv"
                listing.problems.append(Problem(folder, f"holds {found} files; expected one of each", name))
                continue
            try:
                with tables[0].open(newline="", encoding="utf-8") as file:
                    intervals = [(int(row[1]), int(row[2])) for row in list(csv.reader(file))[1:]]
            except (ValueError, IndexError) as error:
                listing.problems.append(Problem(tables[0], f"is no table of index, start, end ({error})", name))
                continue
            if not intervals:
                listing.problems.append(Problem(tables[0], "names no drawer; expected a line for each", name))
            for k, interval in enumerate(intervals, 1):
                listing.files.append(LabelledFile(name, f"{tables[0].stem}_{k:02d}", recordings[0], interval))
    return listing


def list_cep(root: str | Path, suffixes: Collection[str], what: str) -> ClassFolders:
    """CEP-DVS as published: data/img/<n>.jpg, data/MAT/img/<n>.mat, and pathFile.csv, whose line n names the class."""
    top = Path(root)
    table = top / "pathFile.csv"
    sub = "data/img" if set(suffixes) == set(IMAGES) else "data/MAT/img"
    if not table.is_file() or not (top / sub).is_dir():
        raise UserError(f"{what}: {str(root)!r} is not the folder of CEP-DVS, with pathFile.csv and {sub}/")
    lines = table.read_text(encoding="utf-8").splitlines()[1:]
    # A line has paths and then the class, which is its only word among the 20 class names.
    known = set(load_class_map("cep").names)
    classes = [next((word for word in re.split(r"[\s,;/\\]+", line) if word in known), None) for line in lines]
    listing = ClassFolders([], [])
    for path in sorted(p for p in (top / sub).iterdir() if not p.name.startswith(".")):
        if not path.stem.isdecimal() or path.suffix.lower() not in suffixes:
            listing.problems.append(Problem(path, f"is not <number> with one of {_join(suffixes)}"))
        elif int(path.stem) >= len(classes) or classes[int(path.stem)] is None:
            listing.problems.append(Problem(path, f"has no class: line {int(path.stem) + 2} of {table} names none"))
        else:
            listing.files.append(LabelledFile(str(classes[int(path.stem)]), path.stem, path))
    return listing


def list_dvs_gesture(root: str | Path, suffixes: Collection[str], what: str) -> ClassFolders:
    """DVS128 Gesture as published (Amir et al. 2017): userNN_<lighting>.aedat, each of a dozen gestures.

    userNN_<lighting>_labels.csv has one line per gesture: class from 1 to 11, first and last time in us.
    trials_to_train.txt and trials_to_test.txt name the files of the published split.
    """
    listing = ClassFolders([], [])
    for top in _roots(root, what):
        recordings, tables = set(top.glob("*.aedat")), set(top.glob("*_labels.csv"))
        if not recordings:
            raise UserError(f"{what}: {top} holds no userNN_<lighting>.aedat files of DVS128 Gesture")
        parts = _read_trials(top, listing.problems)
        for path in sorted(recordings | {_trial_of(table) for table in tables}):
            table = path.with_name(f"{path.stem}_labels.csv")
            if path not in recordings:
                listing.problems.append(Problem(table, f"has no recordings: {path.name} is missing"))
            elif table not in tables:
                listing.problems.append(Problem(path, f"has no labels: {table.name} is missing"))
            elif parts and path.name not in parts:
                listing.problems.append(Problem(path, "is in neither trials_to_train.txt nor trials_to_test.txt"))
            else:
                for k, name, interval in _read_gestures(table, listing.problems):
                    listing.files.append(
                        LabelledFile(name, f"{path.stem}_{k:02d}", path, interval, parts.get(path.name, ""))
                    )
    return listing


def _trial_of(table: Path) -> Path:
    return table.with_name(f"{table.name.removesuffix('_labels.csv')}.aedat")


def _read_trials(top: Path, problems: list[Problem]) -> dict[str, str]:
    """Return "train" or "test" by file name, as the lists under `top` have it; add their faults to `problems`."""
    parts: dict[str, str] = {}
    for part in ("train", "test"):
        file = top / f"trials_to_{part}.txt"
        if not file.is_file():
            continue
        for name in file.read_text(encoding="utf-8", errors="replace").split():
            if parts.setdefault(name, part) != part:
                problems.append(Problem(file, f"names {name}, which trials_to_train.txt has too"))
            if not (top / name).is_file():
                problems.append(Problem(file, f"names {name}, which is missing"))
    return parts


def _read_gestures(table: Path, problems: list[Problem]) -> Iterator[tuple[int, str, tuple[int, int]]]:
    """Yield number, class and interval of each gesture of a trial; add the faults of the table to `problems`."""
    names = load_class_map("dvsgesture").names
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    gestures = [line.split(",") for line in lines if line.strip()]
    if not gestures:
        problems.append(Problem(table, "names no gesture; expected a line for each"))
    for k, row in enumerate(gestures, 1):
        line = f"line {k + 1}, {','.join(row)!r:.80}"
        try:
            label, start, end = map(int, row)
        except ValueError:
            problems.append(Problem(table, f"is damaged: {line}: expected class,startTime_usec,endTime_usec"))
            continue
        if not 1 <= label <= len(names):
            problems.append(Problem(table, f"{line}: class {label} is unknown; expected 1 to {len(names)}"))
        elif start >= end:
            problems.append(Problem(table, f"{line}: the gesture ends before it starts", names[label - 1]))
        else:
            yield k, names[label - 1], (start, end)


LAYOUTS: dict[str, Callable[[str | Path, Collection[str], str], ClassFolders]] = {
    "folders": list_folders,
    "n_omniglot": list_n_omniglot,
    "cep_dvs": list_cep,
    "dvs_gesture": list_dvs_gesture,
}


def list_recordings(root: str | Path, config: EventsConfig) -> ClassFolders:
    """Return the recordings, or the drawings of pen strokes, under `root`, in the layout that `config` names."""
    suffixes = STROKES if config.source == "strokes" else tuple(READERS)
    return LAYOUTS[config.layout](root, suffixes, "recordings")


def _add_file(listing: ClassFolders, path: Path, folder: str, suffixes: Collection[str], what: str) -> None:
    if path.is_dir() or path.name == COLUMNS_FILE:
        return
    if not path.is_file():
        what = "is missing: a link that leads nowhere" if path.is_symlink() else "is no file, but a pipe or a device"
        listing.problems.append(Problem(path, what, folder))
    elif path.suffix.lower() not in suffixes:
        listing.problems.append(
            Problem(path, f"is not a {' / '.join(suffixes)} file; a class folder holds {what} only", folder)
        )
    elif path.suffix.lower() in TEXT and set(TEXT) <= set(suffixes) and not columns_file(path.parent):
        binary = " / ".join(suffix for suffix in suffixes if suffix not in TEXT)
        problem = f"is not a {binary} file; a class folder holds {what} only, and text with {COLUMNS_FILE} beside it"
        listing.problems.append(Problem(path, problem, folder))
    else:
        listing.files.append(LabelledFile(folder, path.stem, path))


def _roots(root: str | Path, what: str) -> list[Path]:
    pattern = str(root)
    found = [Path(root)] if Path(root).is_dir() else [Path(p) for p in sorted(glob(pattern)) if Path(p).is_dir()]  # noqa: PTH207
    if not str(root) or not found:  # Path("") would be the current folder
        raise UserError(f"{what}: {str(root)!r} is not a folder; expected one that holds <class>/<id>.<ext>")
    return found


def _hidden(path: Path, top: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(top).parts)


def _join(suffixes: Collection[str]) -> str:
    return ", ".join(suffixes)
