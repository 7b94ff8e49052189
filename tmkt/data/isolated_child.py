"""Reads arrays with third-party libraries, in a process of its own, which `isolated.py` starts and sends requests to.

A damaged file may crash these libraries, hang them or make them request any amount of memory. This process therefore
has an alarm and a memory limit per file, and `isolated.py` notices if it dies. It is a script that imports none of our
modules, so that it starts in the time that numpy takes.

A request is a line of JSON: format, path, columns (possible names of x, y, t and p), seconds, bytes. The answer is the
length of a line of JSON in 4 bytes, that line, and the arrays that it describes, one after the other.
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import struct
import sys
import zipfile
from typing import Any

Columns = dict[str, list[str]]
ROLES = ("x", "y", "t", "p")


class Unreadable(Exception):
    """The file is not as expected; the message says how, in words that follow its name."""


def read_npy(path: str, columns: Columns) -> dict[str, Any]:
    import numpy as np

    with open(path, "rb") as file:  # noqa: PTH123
        array = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise Unreadable("goes on after its array; save one recording a file")
        return take_array(array, columns)


def read_npz(path: str, columns: Columns) -> dict[str, Any]:
    """Read arrays of x, y, t and p, or one array `events`, or one array of any name; `sensor_size` if present."""
    import numpy as np

    if not zipfile.is_zipfile(path):  # numpy would read it as a pickle
        raise zipfile.BadZipFile("File is not a zip file")
    with np.load(path, allow_pickle=False) as archive:
        names = [name for name in archive.files if name != "sensor_size"]
        single = "events" if "events" in names else names[0] if len(names) == 1 else None
        if single:
            found = take_array(archive[single], columns)
        else:
            usual = [name for name in names if name in ("x", "y", "t", "ts", "p")]
            found = take(names, columns, archive.get, lambda: listing({n: archive[n] for n in usual}, names))
        if "sensor_size" in archive.files:
            width, height = archive["sensor_size"].tolist()
            found["sensor_size"] = [int(width), int(height)]
        return found


def read_mat(path: str, columns: Columns) -> dict[str, Any]:
    """Read MATLAB's files up to version 7. Those of CEP-DVS end against the format, which none of its loaders check."""
    import scipy.io

    found = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}

    def holds() -> str:
        said = ", ".join(f"{name} ({kind} {list(shape)})" for name, (shape, kind) in found.items())
        structs = [name for name, (_, kind) in found.items() if kind == "struct"]
        remedy = f"; save the fields of a struct as variables: save(file, '-struct', '{structs[0]}')" if structs else ""
        return (said or "nothing") + remedy

    chosen = take(list(found), columns, str, holds)
    loaded = scipy.io.loadmat(path, variable_names=list(chosen.values()), verify_compressed_data_integrity=False)
    return {role: loaded[name] for role, name in chosen.items()}


def read_hdf5(path: str, columns: Columns) -> dict[str, Any]:
    """Read data sets, or fields of one, at the root or in `events`, `CD/events` or `TD`; others by their path."""
    import h5py

    with contextlib.suppress(ImportError):  # filters for files of Prophesee, DSEC and others
        importlib.import_module("hdf5plugin")
    with h5py.File(path, "r") as file:
        paths: dict[str, Any] = {}

        def visit(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                fields = node.dtype.names or (
                    range(node.shape[1]) if len(node.shape) == 2 and node.shape[1] < 16 else ()
                )
                paths.update({f"{name}/{field}": (node, field) for field in fields})
                paths[name] = (node, None)

        file.visititems(visit)

        def get(name: str) -> Any:
            node, field = paths[name]
            return node[()] if field is None else node[field] if isinstance(field, str) else node[:, field]

        folders = ("", "events/", "CD/events/", "TD/")
        folder = next((f for f in folders if any(f + name in paths for name in columns["x"])), "")
        near = {name.removeprefix(folder): name for name in paths if name.startswith(folder)}
        shown = [name for name, (_, field) in paths.items() if field is None]
        return take(
            list(near), columns, lambda name: get(near[name]), lambda: listing({n: paths[n][0] for n in shown}, shown)
        )


def read_aedat4(path: str, columns: Columns) -> dict[str, Any]:
    """Read the first event stream of an AEDAT 4.0 file."""
    import aedat
    import numpy as np

    decoder = aedat.Decoder(path)
    streams = {n: s for n, s in decoder.id_to_stream().items() if s["type"] == "events"}
    if not streams:
        raise Unreadable("holds no event stream")
    first = min(streams)
    packets = [packet["events"] for packet in decoder if packet["stream_id"] == first]
    found = {r: np.concatenate([p[r] for p in packets]) if packets else np.empty(0, np.int64) for r in ROLES}
    return {**found, "sensor_size": [streams[first]["width"], streams[first]["height"]]}


def read_text(path: str, columns: Columns) -> dict[str, Any]:
    """Read numbers separated by commas, semicolons or blanks, one line per event, after an optional line of names."""
    import warnings

    import numpy as np

    with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123
        skipped = 0
        while (line := file.readline(4096)) and (not line.strip() or line.lstrip()[0] == "#"):
            skipped += 1
    separator = next((s for s in ",;" if s in line), None)
    names = [word.strip().strip('"') for word in line.split(separator)]
    numbers = [str(k) for k in range(len(names))]
    if all(map(is_number, names)):
        names = numbers
    elif any(map(is_number, names)) or len(set(names)) < len(names):
        raise Unreadable(f"has a first line of neither numbers nor names of columns, each another: {line.strip()}")
    options: dict[str, Any] = {"delimiter": separator, "skiprows": skipped + (names is not numbers), "ndmin": 2}
    indices = {name: k for labels in (names, numbers) for k, name in enumerate(labels)}

    def table(used: list[int], dtype: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # for a fraction where an integer is expected
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            return np.loadtxt(path, dtype, encoding="utf-8-sig", usecols=used, **options)

    chosen = take(list(indices), columns, lambda name: indices[name], lambda: f"columns {', '.join(names)}")
    used = list(chosen.values())
    try:
        values = list(table(used, np.int64).T)
    except (ValueError, DeprecationWarning):  # keep integers, because 64 bits hold nanoseconds, and a float does not
        values = []
        for column in used:
            try:
                values.append(table([column], np.int64)[:, 0])
            except (ValueError, DeprecationWarning):
                values.append(table([column], np.float64)[:, 0])
    return dict(zip(chosen, values, strict=True))


def take_array(array: Any, columns: Columns) -> dict[str, Any]:
    """Return fields of a structured array, or columns of a matrix by their numbers."""
    if array.dtype.names:
        names = list(array.dtype.names)
        return take(names, columns, lambda name: array[name], lambda: f"the fields {', '.join(names)}")
    if array.ndim != 2:
        raise Unreadable(f"is an array {array.dtype} {list(array.shape)}; expected the fields x, y, t and p")
    names = [str(k) for k in range(array.shape[1])]
    kind = f"a plain array {array.dtype} {list(array.shape)}, which does not say which of its columns is what"
    return take(names, columns, lambda name: array[:, int(name)], lambda: kind)


def take(names: list[str], columns: Columns, get: Any, holds: Any) -> dict[str, Any]:
    """Return {role: get(its name)}; exactly one name of each role must be present."""
    chosen = {}
    for role in ROLES:
        found = [name for name in columns[role] if name in names]
        if len(found) > 1:
            raise Unreadable(f"holds both {' and '.join(found)}; name the one that is meant in columns.yaml beside it")
        if found:
            chosen[role] = found[0]
    if missing := [columns[role][0] for role in ROLES if role not in chosen]:
        raise Unreadable(
            f"lacks the field(s) {', '.join(missing)}: it holds {holds()}; say what is what in columns.yaml beside it"
        )
    return {role: get(name) for role, name in chosen.items()}


def listing(arrays: dict[str, Any], names: list[str]) -> str:
    said = [f"{n} ({arrays[n].dtype} {list(arrays[n].shape)})" if n in arrays else n for n in names[:12]]
    return ", ".join(said) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "nothing"


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


READERS = {  # name of the format, and the library to import before memory is limited
    "npy": (read_npy, "array of events", "numpy"),
    "npz": (read_npz, "array of events", "numpy"),
    "mat": (read_mat, "MATLAB file", "scipy.io"),
    "hdf5": (read_hdf5, "HDF5 file", "h5py"),
    "aedat4": (read_aedat4, "AEDAT 4.0 file", "aedat"),
    "text": (read_text, "table of numbers", "numpy"),
}


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Return the answer for a file, and the arrays that follow it."""
    import numpy as np

    read, kind, library = READERS[request["format"]]
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        importlib.import_module(library)
    except ModuleNotFoundError as error:
        return {"missing": error.name}, []
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        limit = int(statm.read().split()[0]) * resource.getpagesize() + request["bytes"]
    if before[0] != resource.RLIM_INFINITY:
        limit = min(limit, before[0])
    signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
        found = read(request["path"], request["columns"])
        arrays = [np.ascontiguousarray(found[role]) for role in ROLES]
        if odd := [f"{r}: {a.dtype}" for r, a in zip(ROLES, arrays, strict=True) if a.dtype.kind not in "biuf"]:
            raise Unreadable(f"holds no numbers ({', '.join(odd)}); save plain arrays of numbers")
        described = [[array.dtype.str, array.shape] for array in arrays]
        return {"arrays": described, "sensor_size": found.get("sensor_size")}, arrays
    except Unreadable as error:
        return {"error": one_line(error)}, []
    except MemoryError:
        return {"error": f"takes more than {request['bytes'] >> 20} MB to read, more than its size lets expect"}, []
    except BaseException as error:  # PanicException of Rust's libraries is not an Exception
        return {"error": damaged(kind, error)}, []
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.setitimer(signal.ITIMER_REAL, 0)


def damaged(kind: str, error: BaseException) -> str:
    said = one_line(error)
    if "allow_pickle" in said:
        return f"holds Python objects, which are never loaded ({said}); save arrays of numbers x, y, t and p"
    return f"is cut off or no {kind} ({said or type(error).__name__}); fetch it again"


def one_line(error: BaseException) -> str:
    """Return an error's text on one line, shortened, without control characters, which a file may have put into it."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return text if len(text) <= 400 else f"{text[:200]} ... {text[-200:]}"


def main() -> None:
    sys.path.pop(0)  # our folder, so that no library imports our modules
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command that we work for handles it
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends this process, whatever a library is doing
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # discard what libraries print
    for line in sys.stdin.buffer:
        reply, arrays = answer(json.loads(line))
        head = json.dumps(reply).encode()
        out.write(struct.pack("<I", len(head)) + head)
        for array in arrays:
            out.write(array.reshape(-1).view("u1").data)
        out.flush()
        del arrays


if __name__ == "__main__":
    main()
