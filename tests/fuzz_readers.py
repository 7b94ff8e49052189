"""Damaged files of every format through `read_recording`: each is read, or its error names it, whatever its content.

    python tests/fuzz_readers.py --files 20000 [--formats evt3 npz ...] [--seed 0] [--keep FOLDER]

Prints one line per format: the number of files read unchanged, read otherwise, or named; the failures, that is other
errors, crashes of the process and files that took more than a minute; and the most memory that reading took. Exit
status 1 for a failure, or if reading took 1024 MB or more. The same seed makes the same files. AEDAT 4.0 needs a real
file of TMKT_DATA, because nothing here writes it.
"""

import argparse
import io
import multiprocessing
import os
import random
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tmkt.data import isolated
from tmkt.data.readers import read_recording
from tmkt_kernels import events as ev

sys.path.append(str(Path(__file__).parent))
import recorded

SECONDS = 60.0  # limit per file
MEMORY_MB = 1024
DATA = Path(os.environ.get("TMKT_DATA", Path(__file__).parents[2] / "shared/data"))
COUNT = 60  # events of an undamaged file, few so that damage hits every byte often


@dataclass
class Report:
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)  # failures, with the number of the file
    peak_mb: int = 0  # of reading in the process itself, and of all of its child

    @property
    def good(self) -> bool:
        return not self.failures and self.peak_mb < MEMORY_MB


def columns(rng: random.Random) -> dict[str, np.ndarray]:
    made = np.array(recorded.random_events(rng, "dvs128", COUNT))
    return {name: made[:, k] for k, name in enumerate("xytp")}


def of_arrays(save: Callable[..., None], /, **options: Any) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        file = io.BytesIO()
        save(file, columns(rng), **options)
        return file.getvalue()

    return make


def save_npy(file: Any, arrays: dict[str, np.ndarray]) -> None:
    table = np.zeros(COUNT, [(name, "<i8") for name in arrays])
    for name, values in arrays.items():
        table[name] = values
    np.save(file, table)


def save_npz(file: Any, arrays: dict[str, np.ndarray], save: Callable[..., None]) -> None:
    save(file, **arrays)


def save_mat(file: Any, arrays: dict[str, np.ndarray], **options: Any) -> None:
    import scipy.io

    scipy.io.savemat(file, arrays, **options)


def save_hdf5(file: Any, arrays: dict[str, np.ndarray], **options: Any) -> None:
    import h5py

    with h5py.File(file, "w") as opened:
        for name, values in arrays.items():
            opened.create_dataset(f"events/{name}", data=values, **options)


def make_bin(rng: random.Random) -> bytes:
    events = recorded.random_events(rng, "dvs128", COUNT)
    return b"".join(struct.pack(">BBBH", x, y, p << 7 | t >> 16, t & 0xFFFF) for x, y, t, p in events)


def make_text(rng: random.Random) -> bytes:
    rows = zip(*columns(rng).values(), strict=True)
    return "\n".join(["x,y,t,p", *(",".join(map(str, row)) for row in rows)]).encode()


FORMATS: dict[str, tuple[str, Callable[[random.Random], bytes]]] = {  # extension, an undamaged file
    "bin": (".bin", make_bin),
    **{
        name: (
            recorded.SUFFIXES.get(name, ".aedat"),
            lambda rng, name=name: recorded.file_of(name, recorded.random_events(rng, name, COUNT)),
        )
        for name in recorded.ENCODERS
    },
    "npy": (".npy", of_arrays(save_npy)),
    "npz": (".npz", of_arrays(save_npz, save=np.savez)),
    "npz_compressed": (".npz", of_arrays(save_npz, save=np.savez_compressed)),
    "mat": (".mat", of_arrays(save_mat)),
    "mat_compressed": (".mat", of_arrays(save_mat, do_compression=True)),
    "hdf5": (".h5", of_arrays(save_hdf5)),
    "hdf5_compressed": (".h5", of_arrays(save_hdf5, compression="gzip", chunks=(16,))),
    "csv": (".csv", make_text),
    "aedat4": (".aedat4", lambda rng: (DATA / "formats/sample.aedat4").read_bytes()),
}


def damage(data: bytes, rng: random.Random) -> bytes:
    """Make one to five changes. Each kind of change has broken some reader."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        kind = rng.randrange(9)
        # The first bytes give the meaning of the others, so that half of all changes hit them.
        at = rng.randrange(max(1, min(len(out), 300))) if rng.randrange(2) else rng.randrange(max(1, len(out)))
        if kind == 0 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[at] = rng.randrange(256)
        elif kind == 2:
            del out[rng.randrange(len(out) + 1) :]
        elif kind == 3:
            del out[at : at + rng.randrange(1, 20)]
        elif kind == 4:
            out[at:at] = rng.randbytes(rng.randrange(1, 20))
        elif kind == 5:
            number = rng.choice([0, 1, -1, 2**7, 2**15, 2**31 - 1, -(2**31), 2**32, 2**63 - 1, -(2**63), 10**13])
            size = rng.choice([1, 2, 4, 8])
            order = rng.choice(["little", "big"])
            out[at : at + size] = (number % 256**size).to_bytes(size, order)
        elif kind == 6:
            length, source = rng.randrange(1, 64), rng.randrange(max(1, len(out)))
            out[at : at + length] = out[source : source + length]
        elif kind == 7:
            digits = [i for i, byte in enumerate(out[:400]) if chr(byte).isdigit()]
            if digits:
                out[rng.choice(digits)] = ord(rng.choice("0123456789-,. "))
        else:
            out += rng.randbytes(rng.randrange(1, 40))
    return bytes(out)


@lru_cache(maxsize=1)
def undamaged(name: str, seed: int) -> bytes:
    return FORMATS[name][1](random.Random(f"{seed} {name}"))


def damaged(name: str, seed: int, k: int) -> bytes:
    return damage(undamaged(name, seed), random.Random(f"{seed} {name} {k}"))


def fuzz(name: str, files: int, seed: int = 0, keep: Path | None = None) -> Report:
    """Read the files in turn in a separate process; after a file that ends it, a new one continues."""
    report, context = Report(), multiprocessing.get_context("fork")
    at = 0
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "columns.yaml").write_text("unit: us\n")
        path = Path(folder) / f"a{FORMATS[name][0]}"
        while at < files:
            ours, theirs = context.Pipe()
            process = context.Process(target=_read_all, args=(name, seed, at, files, path, theirs))
            process.start()
            theirs.close()
            try:
                while at < files:
                    if not ours.poll(SECONDS):
                        raise TimeoutError
                    outcome, peak = ours.recv()
                    report.outcomes[outcome] += 1
                    report.peak_mb = max(report.peak_mb, peak)
                    if outcome not in ("equal", "other", "named"):
                        _note(report, name, seed, at, outcome, keep)
                    at += 1
            except (TimeoutError, EOFError) as error:
                outcome = "hang" if isinstance(error, TimeoutError) else "crash"
                report.outcomes[outcome] += 1
                _note(report, name, seed, at, outcome, keep)
                at += 1
            process.kill()
            process.join()
            ours.close()
    return report


def _note(report: Report, name: str, seed: int, k: int, outcome: str, keep: Path | None) -> None:
    report.failures.append(f"{name} {k}: {outcome}")
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{name}_{k}{FORMATS[name][0]}").write_bytes(damaged(name, seed, k))


def _read_all(name: str, seed: int, start: int, files: int, path: Path, pipe: Any) -> None:
    at_rest = _peak_mb("self")
    path.write_bytes(undamaged(name, seed))
    whole = read_recording(path).events
    for k in range(start, files):
        path.write_bytes(damaged(name, seed, k))
        try:
            found = read_recording(path).events
            outcome = "equal" if np.array_equal(found, whole) else "other"
            extent = (int(found["x"].max()) + 1, int(found["y"].max()) + 1)
            try:
                ev.to_frames(found, 3, extent, (8, 8))
            except ValueError:
                outcome = "named"
        except ev.DamagedRecordingError as error:
            outcome = "named" if str(error).startswith(f"{path}: ") else f"error without its file: {error}"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        child = isolated.process_id()
        pipe.send((outcome, _peak_mb("self") - at_rest + (_peak_mb(child) if child else 0)))
    isolated.stop()


def _peak_mb(process: int | str) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) >> 10
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="of each format (default: 1000)")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that failed")
    arguments = parser.parse_args()
    good = True
    for name in arguments.formats:
        if name == "aedat4" and not (DATA / "formats/sample.aedat4").is_file():
            print(f"{name:16} skipped: no {DATA}/formats/sample.aedat4; set TMKT_DATA")
            continue
        report = fuzz(name, arguments.files, arguments.seed, arguments.keep)
        counts = ", ".join(f"{report.outcomes[kind]} {kind}" for kind in ("equal", "other", "named", "hang", "crash"))
        print(f"{name:16} {counts}, {len(report.failures)} failures, {report.peak_mb} MB", flush=True)
        for failure in report.failures[:10]:
            print(f"    {failure}")
        good &= report.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
