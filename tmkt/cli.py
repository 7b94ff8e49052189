"""The command `tmkt`: parses arguments, calls functions, reports. It has no logic of its own."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from .arguments import build_parser
from .errors import UNHEARD, Interrupted, UserError


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
        _check_known(parser, given[1:2], "data command", ["check", "prepare", "simulate"])
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
        "tmkt demo trains a spiking network with four methods, events_only, sliding,",
        "tmkt and bridge, on a few simulated event recordings and on MNIST images, and",
        f"tests it on other recordings. Results go to {arguments.out}.",
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
    if arguments.data_command == "simulate":
        from .data.simulate import simulate_folder

        options = {name: getattr(arguments, name) for name in ("camera", "motion", "n", "sensor", "seed", "format")}
        print(simulate_folder(arguments.images, arguments.out, **options))
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


def _export(arguments: argparse.Namespace) -> int:
    from .export import export_run

    print(export_run(arguments.run, arguments.out, arguments.format))
    return 0


def _diagnose(arguments: argparse.Namespace) -> int:
    from .analysis.diagnose import diagnose

    diagnosis = diagnose(arguments.run, draws=arguments.draws, samples=arguments.samples)
    print("\n".join(diagnosis.summary()))
    return 0


def _profile(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from rich.console import Console

    from .analysis.profile import profile_lines, profile_model, profile_run, profile_table
    from .analysis.step_time import profile_config, step_time_table

    target, methods, steps, out = arguments.target, arguments.methods, arguments.steps, arguments.out
    if (target is None) == (arguments.model is None):
        raise UserError("profile: expected RUN_DIR, CONFIG.yaml, or --model NAME")
    if target is not None and Path(target).suffix in (".yaml", ".yml"):
        times = profile_config(target, arguments.override, methods, steps, out)
        Console().print(step_time_table(times))
        return 0
    if arguments.override:
        raise UserError(f"profile: {arguments.override[0]}: settings go with CONFIG.yaml; a run has its own")
    if target is not None:
        result = profile_run(target, arguments.batch, out, methods, steps)
    else:
        size = (arguments.size[0], arguments.size[1])
        place = {"size": size, "time_steps": arguments.time_steps, "num_classes": arguments.classes}
        result = profile_model(arguments.model, **place, train_batch=arguments.batch, out=out)
    Console().print(profile_table(result))
    print("\n".join(profile_lines(result)))
    if result.step_times:
        Console().print(step_time_table(result.step_times))
    return 0


_COMMANDS = {
    "demo": _demo,
    "train": _train,
    "eval": _eval,
    "data": _data,
    "compare": _compare,
    "export": _export,
    "diagnose": _diagnose,
    "profile": _profile,
}
