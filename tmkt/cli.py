"""The command `tmkt`: parses, calls, reports. No logic of its own."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from .errors import UserError

EXAMPLES = """\
examples:
  tmkt demo                                          # three minutes on two CPU cores, needs no data
  tmkt train configs/nmnist.yaml                     # MNIST images to N-MNIST recordings
  tmkt train configs/nmnist.yaml transfer.method=events_only out=runs/events_only seed=1024
  tmkt data check /data/N-MNIST/Train --sensor 34 34 # names each damaged or misplaced recording
  tmkt eval runs/nmnist --events /data/N-MNIST/Test  # a trained run on other recordings
  tensorboard --logdir runs                          # curves while it trains

files of a run (out=...):
  config.yaml         every setting, as the run used it
  split.json          which recordings trained, validated and tested, and which images were paired with them
  metrics.jsonl       one JSON record a log point: kind is environment, train, validation or test
  tensorboard/        the same, for TensorBoard
  checkpoints/        step-<n>/, written whole or not at all; the same command goes on from the last one
  model.safetensors   the trained weights, there when the run is finished

recordings lie in <class>/<id>.bin (N-MNIST / N-Caltech101 format), .aedat4, .dat, .raw (EVT2, EVT3), .npy or
.npz; a folder's name is the class's name in the static set. Settings are explained in configs/nmnist.yaml.
"""


def build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="tmkt",
        description="Train spiking networks on event-camera recordings with knowledge from static images, by "
        "time-step mixup (TMKT, arXiv 2511.12150).",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{demo,train,eval,data}")

    demo = commands.add_parser("demo", help="compare three methods on a few simulated recordings, with figures")
    demo.add_argument("--out", default="runs/demo", help="folder for runs, figures and the table (default: runs/demo)")
    demo.add_argument("--seed", type=int, default=42, help="of data, weights and training (default: 42)")
    demo.add_argument("override", nargs="*", metavar="key=value", help="settings of all its runs, e.g. train.steps=100")

    train = commands.add_parser(
        "train",
        help="train one run from a YAML configuration",
        description="Train one run. The last line printed is its accuracy on the held-out test recordings.",
        epilog="example: tmkt train configs/nmnist.yaml train.steps=200 out=runs/short",
    )
    train.add_argument("config", metavar="CONFIG.yaml")
    train.add_argument("override", nargs="*", metavar="key=value", help="e.g. train.lr=1e-3 model.name=vgg_snn")

    evaluate = commands.add_parser(
        "eval",
        help="accuracy of a finished run, on its test recordings or on a folder of others",
        description="Evaluate a finished run. The last line printed is `accuracy: 0.xxxx (n/N)`.",
    )
    evaluate.add_argument("run", metavar="RUN_DIR")
    evaluate.add_argument(
        "--events", metavar="DIR", help="folder of <class>/<id>.<ext>; default: the run's own test recordings"
    )
    _add_data(commands)
    return parser


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="check recordings, prepare frames").add_subparsers(
        dest="data_command", required=True, metavar="{check,prepare}"
    )
    check = data.add_parser(
        "check",
        help="name each damaged, missing or misplaced recording of a folder",
        description="Read every recording of a folder; exit status 1 if anything is wrong. The last line is a summary.",
        epilog="example: tmkt data check /data/N-MNIST/Train --config configs/nmnist.yaml",
    )
    check.add_argument("folder", metavar="DIR")
    check.add_argument("--sensor", nargs=2, type=int, metavar=("W", "H"), help="events beyond it are named")
    check.add_argument("--config", metavar="CONFIG.yaml", help="check against its layout, sensor, classes and images")
    check.add_argument("--run", metavar="RUN_DIR", help="name the recordings of that run which are not there")
    prepare = data.add_parser(
        "prepare",
        help="fill the frame cache of a configuration",
        description="Read all recordings of a configuration into data.cache, from which training then starts at once.",
        epilog="example: tmkt data prepare configs/ncaltech101.yaml data.cache=cache",
    )
    prepare.add_argument("config", metavar="CONFIG.yaml")
    prepare.add_argument("override", nargs="*", metavar="key=value", help="e.g. data.time_steps=6 data.cache=DIR")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, or 2 for a mistake of the user's, after one line that says which."""
    arguments = build_parser().parse_args(argv)
    try:
        return _COMMANDS[arguments.command](arguments)
    except (UserError, OSError) as error:  # OSError: a file or folder that cannot be read or written
        print(f"tmkt: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tmkt: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


# The commands import what they need themselves: `tmkt --help` does not wait for the trainer.


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import run_demo

    run_demo(arguments.out, arguments.seed, arguments.override)
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from .config import load_config
    from .engine import train

    config = load_config(arguments.config, arguments.override)
    score = train(config)
    print(f"run: {config.out}")
    print(f"accuracy: {score.accuracy:.4f} ({score.correct}/{score.total})")
    return 0


def _eval(arguments: argparse.Namespace) -> int:
    from .evaluation import evaluate_run

    score = evaluate_run(arguments.run, arguments.events)
    print(f"accuracy: {score.accuracy:.4f} ({score.correct}/{score.total})")
    return 0


def _data(arguments: argparse.Namespace) -> int:
    from .config import load_config

    if arguments.data_command == "prepare":
        from .data import fill_cache

        print(fill_cache(load_config(arguments.config, arguments.override)))
        return 0
    from .data.check import check_folder

    config = load_config(arguments.config) if arguments.config else None
    sensor = tuple(arguments.sensor) if arguments.sensor else None
    report = check_folder(arguments.folder, config=config, sensor_size=sensor, run=arguments.run)
    for problem in report.problems:
        print(problem)
    print(report.summary)
    return 1 if report.problems else 0


_COMMANDS = {"demo": _demo, "train": _train, "eval": _eval, "data": _data}
