"""The command `tmkt`: parses arguments, calls functions, reports. It has no logic of its own."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from . import __version__
from .errors import UNHEARD, Interrupted, UserError

EXAMPLES = """\
examples:
  tmkt demo                           # needs no data; one to two minutes
  tmkt train configs/nmnist.yaml      # MNIST images to N-MNIST recordings
  tmkt train configs/nmnist.yaml transfer.method=sliding out=runs/sliding
  tmkt data check DIR --sensor 34 34  # names each damaged recording
  tmkt eval runs/nmnist --events DIR  # tests a trained run on other recordings
  tmkt compare configs/nmnist.yaml --methods tmkt sliding --seeds 1 2 --jobs 2
  tmkt diagnose runs/nmnist           # gradient variance, CKA, t-SNE
  tmkt profile runs/nmnist            # synaptic operations, energy, speed
  tensorboard --logdir runs           # curves while it trains

files of a run (out=...):
  config.yaml        every setting, as the run used it
  split.json         the recordings that trained, validated and tested, and the
                     images that were paired with them
  metrics.jsonl      one JSON record per log point: environment, train,
                     validation or test
  predictions.jsonl  name, label and predicted class of each test recording
  tensorboard/       the same metrics for TensorBoard
  checkpoints/       step-<n>/ with checksums; the same command resumes from the
                     last one (docs/training.md)
  model.safetensors  the trained weights, once the run is finished

Recordings lie in <class>/<id>.bin (N-MNIST / N-Caltech101 format), .aedat,
.aedat4, .dat, .raw, .npz, .npy, .h5, .mat or .csv (docs/data.md). A folder has
the name of its class in the static set. Settings are explained in
configs/nmnist.yaml.
"""


def build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="tmkt",
        description="Train spiking networks on event-camera recordings with knowledge from static\n"
        "images, by time-step mixup (TMKT, arXiv 2511.12150).",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"tmkt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="compare three methods on a few simulated recordings, with figures",
        description="Train three methods on a few simulated recordings and MNIST images, test them on other "
        "recordings, and draw four figures. It takes one to two minutes on two CPU cores and needs no data.",
        epilog="example: tmkt demo --out runs/demo --seed 1",
    )
    demo.add_argument("--out", default="runs/demo", help="folder for runs, figures and the table (default: runs/demo)")
    demo.add_argument("--seed", type=int, default=42, help="seed of data, weights and training (default: 42)")
    demo.add_argument(
        "override", nargs="*", default=[], metavar="key=value", help="settings of all its runs, e.g. train.steps=100"
    )

    train = commands.add_parser(
        "train",
        help="train one run from a YAML configuration",
        description="Train one run. The last line printed is its accuracy on the held-out test recordings.",
        epilog="example: tmkt train configs/nmnist.yaml train.steps=200 out=runs/short",
    )
    train.add_argument("config", metavar="CONFIG.yaml", help="settings, as in configs/nmnist.yaml")
    train.add_argument(
        "override", nargs="*", default=[], metavar="key=value", help="e.g. train.lr=1e-3 model.name=vgg_snn"
    )

    evaluate = commands.add_parser(
        "eval",
        help="accuracy of a finished run, on its test recordings or on a folder of others",
        description="Test a finished run. The last line printed is `accuracy: 0.xxxx (n/N)`, over the recordings "
        "that the run has not seen. If the run was trained or validated on some of them, the lines before it count "
        "unseen, validated and trained recordings separately. Recordings are recognised by their content.",
        epilog="example: tmkt eval runs/nmnist --events /data/N-MNIST/Test",
    )
    evaluate.add_argument("run", metavar="RUN_DIR", help="folder of a finished `tmkt train`")
    evaluate.add_argument(
        "--events", metavar="DIR", help="folder of <class>/<id>.<ext>; default: the run's own test recordings"
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object instead")
    _add_data(commands)
    _add_compare(commands)
    _add_examine(commands)
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
    check.add_argument("folder", metavar="DIR", help="folder of <class>/<id>.<ext>")
    check.add_argument("--sensor", nargs=2, type=int, metavar=("W", "H"), help="name events beyond this sensor")
    check.add_argument("--config", metavar="CONFIG.yaml", help="check against its layout, sensor, classes and images")
    check.add_argument("--run", metavar="RUN_DIR", help="name the recordings of that run which are not there")
    prepare = data.add_parser(
        "prepare",
        help="fill the frame cache of a configuration",
        description="Read all recordings of a configuration into data.cache, from which training then starts at once.",
        epilog="example: tmkt data prepare configs/ncaltech101.yaml data.cache=cache",
    )
    prepare.add_argument("config", metavar="CONFIG.yaml", help="settings, as in configs/nmnist.yaml")
    prepare.add_argument(
        "override", nargs="*", default=[], metavar="key=value", help="e.g. data.time_steps=6 data.cache=DIR"
    )


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="train a grid of methods, seeds and numbers of recordings, and report with intervals and significance",
        description="Train every method at every number of recordings with every seed, each run by `tmkt train` in a "
        "process of its own. The same command resumes where it was stopped and leaves finished runs alone. Writes "
        "report.html, report.md and results.json.",
        epilog="example: tmkt compare configs/nmnist.yaml train.steps=200 --methods tmkt no_mag:transfer.mag_weight=0 "
        "sliding --seeds 42 1024 90210 --per-class 5,20,80 --jobs 2 --out runs/compare",
    )
    compare.add_argument("config", metavar="CONFIG.yaml", help="settings, as in configs/nmnist.yaml")
    compare.add_argument(
        "override", nargs="*", default=[], metavar="key=value", help="settings of all runs, e.g. train.steps=200"
    )
    compare.add_argument(
        "--methods",
        nargs="+",
        required=True,
        metavar="METHOD",
        help="methods to compare; NAME:key=value[:key=value] is CONFIG with these settings, e.g. an ablation",
    )
    compare.add_argument(
        "--seeds", nargs="+", type=int, required=True, metavar="SEED", help="each trains every method once"
    )
    compare.add_argument(
        "--per-class",
        type=_integers,
        default=[],
        metavar="N,N",
        help="recordings per class to train on (default: CONFIG's)",
    )
    compare.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the cores (default: 1)")
    compare.add_argument("--out", default="runs/compare", help="folder for runs and report (default: runs/compare)")


def _add_examine(commands: Any) -> None:
    diagnose = commands.add_parser(
        "diagnose",
        help="gradient variance, alignment of the domains, MAG and MRP accuracy of a finished run",
        description="Measure at a finished run's weights: gradient variance of time-step mixup against "
        "whole-sample replacement, CKA of static and event features over layers and steps, accuracy of the MAG and MRP "
        "heads, t-SNE. Writes diagnose.json and pictures to RUN_DIR/diagnose/.",
        epilog="example: tmkt diagnose runs/nmnist --draws 32",
    )
    diagnose.add_argument("run", metavar="RUN_DIR", help="folder of a finished `tmkt train`")
    diagnose.add_argument("--draws", type=int, default=16, help="pairs of gradients per setting (default: 16)")
    diagnose.add_argument("--samples", type=int, default=200, help="test recordings, at most (default: 200)")

    profile = commands.add_parser(
        "profile",
        help="synaptic operations, firing rates, energy, latency and memory of a run or a backbone",
        description="Profile a finished run on its test recordings, written to RUN_DIR/profile/; or a backbone with "
        "untrained weights on random frames: its dense operations, latency and memory then mean something, its firing "
        "rates do not.",
        epilog="examples: tmkt profile runs/nmnist; tmkt profile --model vgg_snn --size 48 48 -T 10 --out profiles/vgg",
    )
    profile.add_argument("run", metavar="RUN_DIR", nargs="?", help="folder of a finished `tmkt train`")
    profile.add_argument("--model", metavar="NAME", help="a backbone, e.g. vgg_snn, in place of a run")
    profile.add_argument(
        "--size", nargs=2, type=int, metavar=("W", "H"), default=[48, 48], help="of a frame (default: 48 48)"
    )
    profile.add_argument("-T", "--time-steps", type=int, default=10, help="frames per sample (default: 10)")
    profile.add_argument("--classes", type=int, default=10, help="outputs (default: 10)")
    profile.add_argument("--batch", type=int, default=16, help="samples per training step (default: 16)")
    profile.add_argument("--out", metavar="DIR", help="folder for profile.json and profile.png")


def _integers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 5,20,80, got {text!r}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, or 2 for a user's mistake, after one line that describes it.

    Others: 1 if a check or a run of a comparison failed, 128 + number for a signal, 74 if nothing can be printed.
    """
    parser = build_parser()
    given = sys.argv[1:] if argv is None else list(argv)
    if not given:
        parser.print_help(sys.stderr)
        return 2
    _check_known(parser, given[:1], "command", list(_COMMANDS))
    if given[:1] == ["data"]:
        _check_known(parser, given[1:2], "data command", ["check", "prepare"])
    arguments, rest = parser.parse_known_args(given)
    # argparse wants all positional arguments in one place, but key=value may also follow the options.
    if rest and not ("override" in arguments and all("=" in item and item[0] != "-" for item in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.override = [*arguments.override, *rest]
    try:
        status = _COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
        return status
    except UserError as error:
        return _tell(str(error), 2)
    except OSError as error:
        if error.filename is None:  # the terminal or its redirection
            return _tell(f"what this command prints cannot be written ({error.strerror})", UNHEARD)
        return _tell(f"{error.filename}: cannot be read or written ({error.strerror})", 2)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tmkt"):
            raise
        return _tell(f"the package {error.name!r} is not installed; run `pip install 'tmkt[train]'`", 2)
    except Interrupted as stop:
        return _tell(str(stop), stop.status)
    except KeyboardInterrupt:
        return _tell("interrupted", 130)


def _check_known(parser: argparse.ArgumentParser, given: Sequence[str], what: str, known: Sequence[str]) -> None:
    """Exit with the nearest known word if a given word is neither known nor an option."""
    for word in given:
        if word[:1] != "-" and word not in known:
            nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]
            parser.error(f"unknown {what} {word!r}; the nearest is {nearest!r}")


def _tell(text: str, status: int) -> int:
    """Print the last line of a command that failed. Returns its exit status."""
    try:
        if status < 128 or os.environ.get("RANK", "0") == "0":  # all processes are interrupted together
            print(f"tmkt: {text}", file=sys.stderr, flush=True)
    except OSError:
        status = UNHEARD
    if status == UNHEARD:  # otherwise Python would write the rest of stdout again at exit, with a traceback
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if os.environ.get("WORLD_SIZE", "1") != "1":  # others may be gone, and Gloo's threads would then sometimes abort
        sys.stdout.flush()
        os._exit(status)
    return status


# Each command imports its own modules, so that `tmkt --help` does not wait for the trainer.


def _demo(arguments: argparse.Namespace) -> int:
    from .progress import say

    for line in (
        "tmkt demo trains a spiking network with three methods, events_only, sliding",
        "and tmkt, on a few simulated event recordings and on MNIST images, and tests it",
        f"on other recordings. Results go to {arguments.out}.",
        "One to two minutes on two idle CPU cores. The last digits of the accuracies",
        "depend on the processor (docs/numerics.md).",
    ):
        say(line)
    say("loading torch and the trainer")
    from .demo import run_demo

    run_demo(arguments.out, arguments.seed, arguments.override)
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from .config import load_config
    from .distributed import shut_down
    from .progress import first_process
    from .training.trainer import train

    config = load_config(arguments.config, arguments.override)
    score = train(config)
    shut_down()
    if first_process:
        print(f"run: {config.out}")
        print(f"accuracy: {_accuracy(score.correct, score.total)}")
    return 0


def _eval(arguments: argparse.Namespace) -> int:
    import json

    from .training.evaluation import evaluate_parts

    result = evaluate_parts(arguments.run, arguments.events)
    if arguments.json:
        print(json.dumps(result.record()))
        return 0
    unseen = result.parts["unseen"]
    if unseen.total < result.score.total:
        for part, count in result.parts.items():
            print(f"{part}: {_accuracy(*count)}")
    print(f"accuracy: {_accuracy(*unseen)}")
    return 0


def _accuracy(correct: int, total: int) -> str:
    return f"{correct / total:.4f} ({correct}/{total})" if total else "none (0/0)"


def _data(arguments: argparse.Namespace) -> int:
    from .config import load_config

    if arguments.data_command == "prepare":
        from .data import fill_cache

        print(fill_cache(load_config(arguments.config, arguments.override)))
        return 0
    from .data.check import check_folder
    from .training.run_folder import RunFolder

    config = load_config(arguments.config) if arguments.config else None
    sensor = tuple(arguments.sensor) if arguments.sensor else None
    expected = {arguments.run: RunFolder(arguments.run).recordings()} if arguments.run else {}
    report = check_folder(arguments.folder, config=config, sensor_size=sensor, expected=expected)
    for problem in report.problems:
        print(problem)
    print(report.summary)
    return 1 if report.problems else 0


def _compare(arguments: argparse.Namespace) -> int:
    """Return exit code 1 if a run failed."""
    import signal

    from rich.console import Console

    from .analysis.compare import compare, results_table

    for ends in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C, so that no run outlives the command that watches it
        signal.signal(ends, signal.default_int_handler)
    results = compare(
        arguments.config,
        arguments.override,
        methods=arguments.methods,
        seeds=arguments.seeds,
        per_class=arguments.per_class,
        out=arguments.out,
        jobs=arguments.jobs,
    )
    Console().print(results_table(results))
    return int(bool(results.failed))


def _diagnose(arguments: argparse.Namespace) -> int:
    from .analysis.diagnose import diagnose

    diagnosis = diagnose(arguments.run, draws=arguments.draws, samples=arguments.samples)
    print("\n".join(diagnosis.summary()))
    return 0


def _profile(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from .analysis.profile import profile_lines, profile_model, profile_run, profile_table

    if (arguments.run is None) == (arguments.model is None):
        raise UserError("profile: expected either RUN_DIR or --model NAME")
    if arguments.run is not None:
        result = profile_run(arguments.run, arguments.batch, arguments.out)
    else:
        size = (arguments.size[0], arguments.size[1])
        place = {"size": size, "time_steps": arguments.time_steps, "num_classes": arguments.classes}
        result = profile_model(arguments.model, **place, train_batch=arguments.batch, out=arguments.out)
    Console().print(profile_table(result))
    print("\n".join(profile_lines(result)))
    return 0


_COMMANDS = {
    "demo": _demo,
    "train": _train,
    "eval": _eval,
    "data": _data,
    "compare": _compare,
    "diagnose": _diagnose,
    "profile": _profile,
}
