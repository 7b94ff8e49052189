"""`tmkt diagnose`: tests of the method's claims on a finished run's network, as numbers and pictures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic_files import write_text
from ..data.sources.opening import has_images
from ..errors import UserError
from ..progress import say
from .features import (
    Guidance,
    LayerCKA,
    Silhouettes,
    domain_cka,
    draw_cka,
    draw_embedding,
    embed,
    guidance,
    layer_features,
)
from .figures import save
from .finished_run import TestSamples, open_run
from .gradients import GradientTrace, draw_gradient_variance, gradient_variance

FOLDER = "diagnose"


@dataclass(frozen=True)
class Diagnosis:
    """samples: number of test recordings; draws: pairs of gradients per setting; cka: per layer."""

    samples: int
    draws: int
    gradient_variance: list[GradientTrace]
    cka: dict[str, LayerCKA]
    embedding: Silhouettes
    guidance: Guidance

    def record(self) -> dict[str, Any]:
        """Return plain values, as in diagnose.json."""
        heads = self.guidance._asdict().items()
        return {
            "samples": self.samples,
            "draws": self.draws,
            "gradient_variance": [trace.record() for trace in self.gradient_variance],
            "cka": {layer: row._asdict() for layer, row in self.cka.items()},
            "embedding": self.embedding._asdict(),
            "guidance": {name: head._asdict() for name, head in heads if head is not None},
        }

    def summary(self) -> list[str]:
        """Return the diagnosis in a few lines."""
        lines = []
        for trace in self.gradient_variance:
            if trace.against_sample and trace.source == "all":
                share, low, high = (f"{value:.2f}" for value in trace.against_sample)
                lines.append(
                    f"gradient variance at r = {trace.ratio}: time-step mixup has {share} ({low} to {high}) times that "
                    "of whole-sample replacement"
                )
        name, row = list(self.cka.items())[-1]
        mean, chance = (sum(values) / len(values) for values in row)
        lines.append(f"CKA of static and event {name}: {mean:.2f}, by chance {chance:.2f} (mean over steps)")
        mag, mrp = self.guidance
        if mag:
            lines.append(f"MAG head: accuracy {mag.accuracy:.3f}, commoner answer {mag.commoner:.3f}")
        if mrp:
            error, constant = mrp.mean_absolute_error, mrp.mean_absolute_error_of_mean
            lines.append(f"MRP head: mean error {error:.3f} of the share, always giving the mean {constant:.3f}")
        if not (mag or mrp):
            lines.append("MAG and MRP heads: the run has none")
        return lines


def diagnose(run_dir: str | Path, *, draws: int = 16, samples: int = 200) -> Diagnosis:
    """Measure, and write diagnose.json and pictures to <run_dir>/diagnose/.

    Args:
        draws: pairs of gradients per setting of the gradient's variance.
        samples: most test recordings for CKA, t-SNE and the heads.

    Raises:
        UserError: too few of either, or the run is not finished, damaged, or has no images.
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
    places, silhouettes = embed(features, test_samples.label)
    heads = guidance(run, test_samples)
    say(f"gradient variance, {draws} pairs of gradients for each setting")
    variance = gradient_variance(run, draws)
    save(draw_cka(cka), folder / "cka.png")
    save(draw_embedding(places, test_samples.label, run.data.classes), folder / "tsne.png")
    save(draw_gradient_variance(variance), folder / "gradient_variance.png")
    diagnosis = Diagnosis(len(test_samples), draws, variance, cka, silhouettes, heads)
    write_text(folder / "diagnose.json", json.dumps(diagnosis.record(), indent=1) + "\n")
    return diagnosis
