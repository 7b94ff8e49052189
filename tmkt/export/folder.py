"""The exported folder of a finished run: its weights, its settings without this machine's paths, a model card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config, from_mapping
from ..errors import DamagedError, UserError
from ..progress import say
from ..training.run_folder import CLASSES, RunFolder, has_own_class_map
from . import card, programs

FORMATS = {"torch": ("model.pt2", programs.torch_program), "nir": ("model.nir", programs.nir_graph)}
CARD = "README.md"


def export_run(run_dir: str | Path, out: str | Path, formats: Sequence[str] = ()) -> Path:
    """Write a finished run as a folder `out` that opens as the run itself does, see `RunFolder.load_model`.

    Nothing in it names a path of this machine: a path among the settings is cut to its last name, and a class map of
    the user's own is copied. An earlier export of the same run is replaced.

    Args:
        formats: further files, of `FORMATS`. torch: model.pt2 of torch.export, for any batch. nir: model.nir.

    Raises:
        UserError: the run is unfinished or damaged, `out` holds anything else, or a format cannot express the network.
    """
    run, target = RunFolder(run_dir), RunFolder(out)
    _, model, classes = run.load_model()
    score = run.test_score()
    if score is None:
        raise UserError(
            f"run {run}: has no score of its test recordings; expected the folder of a finished `tmkt train`"
        )
    config, roots = portable(run.config())
    files: dict[str, bytes] = {}
    for name in formats:
        say(f"writing the network as {FORMATS[name][0]}")
        file, make = FORMATS[name]
        files[file] = make(model, config)
    facts = card.Facts(run.path.resolve().name, config, classes, score, run.split(), run.environment(), roots)
    files[CARD] = card.text(facts, formats).encode()
    allowed = {CARD, *(file for file, _ in FORMATS.values())}
    try:
        run.copy_to(target, config, files, allowed)
    except DamagedError as error:
        raise UserError(f"run {run}: {error}; `tmkt train` makes it again") from error
    return target.path


def portable(config: Config) -> tuple[Config, list[str]]:
    """Return the settings without a cache, each absolute path cut to its last name, and the dotted keys of these.

    A class map of the user's own is the one in the exported folder.
    """
    cut: list[str] = []

    def walk(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: walk(inner, f"{key}.{name}".lstrip(".")) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(inner, key) for inner in value]
        if isinstance(value, str) and Path(value).expanduser().is_absolute():
            cut.append(key)
            return Path(value).name
        return value

    plain = walk(config.model_dump(), "")
    plain["data"]["cache"] = None
    if has_own_class_map(config):
        plain["data"]["classes"] = CLASSES
    return from_mapping(plain), [key for key in cut if key not in ("out", "data.cache", "data.classes")]
