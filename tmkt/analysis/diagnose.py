"""`tmkt diagnose`: what a finished run's network shows of the method's claims, as numbers and pictures."""

import json
from pathlib import Path
from typing import Any

from ..atomic_files import write_text
from ..data.prepare import has_images
from ..errors import UserError
from ..progress import say
from .features import domain_cka, draw_cka, draw_embedding, embed, guidance, layer_features
from .figures import save
from .finished_run import TestSamples, open_run
from .gradients import draw_gradient_variance, gradient_variance

FOLDER = "diagnose"


def diagnose(run_dir: str | Path, *, draws: int = 16, samples: int = 200) -> dict[str, Any]:
    """Measure, and write diagnose.json and pictures to <run_dir>/diagnose/.

    Args:
        draws: pairs of gradients for each setting of the gradient's variance.
        samples: test recordings, at most, for CKA, t-SNE and the heads.

    Returns:
        gradient_variance: records, see `gradients.gradient_variance`; cka: layer -> {cka, chance}, lists over steps;
        embedding: silhouettes; guidance: see `features.guidance`; samples: how many test recordings were used.
    """
    for what, number, least in (("--draws", draws, 2), ("--samples", samples, 4)):
        if number < least:
            raise UserError(f"{what}: expected at least {least}, got {number}")
    run = open_run(run_dir)
    if not has_images(run.config):
        raise UserError(f"run {run_dir}: has no static images to compare recordings with; `tmkt profile` needs none")
    folder = run.folder.subfolder(FOLDER)
    test_samples = TestSamples(run, samples)
    say(f"features of both domains, {len(test_samples)} samples")
    features = layer_features(run, test_samples)
    cka = domain_cka(features)
    placed, silhouettes = embed(features, test_samples.label)
    heads = guidance(run, test_samples)
    say(f"gradient variance, {draws} pairs of gradients for each setting")
    variance = gradient_variance(run, draws)
    save(draw_cka(cka), folder / "cka.png")
    save(draw_embedding(placed, test_samples.label, run.data.classes), folder / "tsne.png")
    save(draw_gradient_variance(variance), folder / "gradient_variance.png")
    result = {
        "samples": len(test_samples),
        "draws": draws,
        "gradient_variance": variance,
        "cka": cka,
        "embedding": silhouettes,
        "guidance": heads,
    }
    write_text(folder / "diagnose.json", json.dumps(result, indent=1) + "\n")
    return result


def summary(result: dict[str, Any]) -> list[str]:
    """The diagnosis in a few lines."""
    lines = []
    for record in result["gradient_variance"]:
        if "relative" in record and record["source"] == "all":
            share, low, high = (f"{record[key]:.2f}" for key in ("relative", "low", "high"))
            lines.append(
                f"gradient variance at r = {record['ratio']}: time-step mixup has {share} ({low} to {high}) times that "
                "of whole-sample replacement"
            )
    name, row = list(result["cka"].items())[-1]
    mean, chance = (sum(row[key]) / len(row[key]) for key in ("cka", "chance"))
    lines.append(f"CKA of static and event {name}: {mean:.2f}, by chance {chance:.2f} (mean over steps)")
    heads = result["guidance"]
    if "mag" in heads:
        lines.append(
            f"MAG head: accuracy {heads['mag']['accuracy']:.3f}, commoner answer {heads['mag']['commoner']:.3f}"
        )
    if "mrp" in heads:
        error, constant = heads["mrp"]["mean_absolute_error"], heads["mrp"]["mean_absolute_error_of_mean"]
        lines.append(f"MRP head: mean error {error:.3f} of the share, always giving the mean {constant:.3f}")
    if not heads:
        lines.append("MAG and MRP heads: the run has none")
    return lines
