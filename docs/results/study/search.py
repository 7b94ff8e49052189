"""The search for each method's settings, on validation recordings alone: optuna, with equal trials."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from runs import METHODS, Cell, read, run
from targets import Target

CONFIRMED = 3
CHOICES: dict[str, list[Any]] = {  # the first of each is what every search begins with
    "train.weight_decay": [0.01, 0.0, 0.1],
    "transfer.classification": ["tet", "ce"],
    "transfer.average": [0.0, 0.98],
    "data.augment.time_mix": [0.0, 0.5],
    "data.augment.event_drop": [0.0, 0.5],
    "data.rotation": [0.0, 10.0],
}
OF_TWO_STREAMS: dict[str, list[Any]] = {
    "transfer.da_weight": [0.5, 0.0],
    "transfer.streams": ["separate", "joint"],
}
OF_METHOD: dict[str, dict[str, list[Any]]] = {
    "tmkt": {"transfer.ratio": [0.3, 0.1, 0.5, 0.7]},
    "sliding": {"transfer.power": [3.0, 1.0]},
    "ckd": {"transfer.power": [3.0, 1.0], "transfer.teacher.weight": [1.0, 0.3, 3.0]},
}


def searched(target: Target, method: str, begin: bool = False) -> Any:
    """Return the search of a method, which `begin` makes if it is missing; without it nothing is written."""
    import optuna  # here, because runs at settings that are found need none

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(str(target.folder / "tuning.journal"))
    storage = optuna.storages.JournalStorage(backend)
    if begin:
        return optuna.create_study(storage=storage, study_name=method, direction="maximize", load_if_exists=True)
    return optuna.load_study(storage=storage, study_name=method)


def finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name == "COMPLETE"]


def choices(method: str) -> dict[str, list[Any]]:
    both = OF_TWO_STREAMS if method not in ("events_only", "finetune") else {}
    return {**CHOICES, **both, **OF_METHOD.get(method, {})}


def tune(target: Target, method: str) -> None:
    import optuna

    study = searched(target, method, begin=True)
    first = {"train.lr": 0.007, **{key: values[0] for key, values in choices(method).items()}}
    study.enqueue_trial(first, skip_if_exists=True)

    def objective(trial: optuna.Trial) -> float:
        changes: dict[str, Any] = {"train.lr": trial.suggest_float("train.lr", 2e-3, 2e-2, log=True)}
        changes |= {key: trial.suggest_categorical(key, values) for key, values in choices(method).items()}
        key = "transfer.consistency_weight"
        if changes["transfer.average"] and "transfer.da_weight" in changes:
            changes[key] = trial.suggest_categorical(key, [0.0, 1.0])
        cells = [Cell(method, method, target.counts[0], seed, changes) for seed in target.tuning_seeds]
        scores = [run(target, cell, "tune")["accuracy"] for cell in cells]
        trial.set_user_attr("accuracies", scores)
        print(f"tune {method} {trial.number + 1}/{target.trials}: {scores} {changes}", flush=True)
        return float(np.mean(scores))

    while (done := len(finished(study))) < target.trials:
        study.sampler = optuna.samplers.TPESampler(seed=done, n_startup_trials=5)
        study.optimize(objective, n_trials=1)


def confirm(target: Target) -> Iterator[Cell]:
    for method in METHODS:
        trials = sorted(finished(searched(target, method)), key=lambda trial: -(trial.value or 0.0))
        for trial in trials[:CONFIRMED]:
            for seed in target.confirming_seeds:
                yield Cell(method, method, target.counts[0], seed, dict(trial.params))


def ranking(target: Target, method: str) -> list[tuple[float, dict[str, Any]]]:
    """Return (mean validation accuracy, setting) of the confirmed settings, over whole trainings, best first."""
    scores: dict[str, list[float]] = {}
    for record in read(target, "confirm"):
        if record["method"] == method:
            scores.setdefault(json.dumps(record["changes"]), []).append(record["accuracy"])
    means = [(float(np.mean(values)), json.loads(text)) for text, values in scores.items()]
    return sorted(means, key=lambda pair: -pair[0])


def write_settings(target: Target) -> None:
    """Write the best setting of each method to settings.json, which the runs on the test recordings read."""
    settings = {method: ranking(target, method)[0][1] for method in METHODS}
    (target.folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def best(target: Target, method: str) -> dict[str, Any]:
    settings = json.loads((target.folder / "settings.json").read_text(encoding="utf-8"))
    return dict(settings[method])
