"""Claim 2: is the gradient's variance lower with time-step mixup than with whole samples replaced at the same share?

At fixed weights (untrained, and after 30 and 150 steps of tmkt) it computes the gradient of the mixed stream's loss on
64 batches for both ways of mixing, with the same pairs and crops. `python .../gradient_variance.py` writes
gradient_variance.jsonl beside this file: trace of the covariance and squared norm of the mean gradient, once over all
random draws, once over the mixing alone (one batch of pairs, 64 draws of the switch steps).
"""

import json
import tempfile
from pathlib import Path

import torch
from targets import TARGETS, drawn, everything
from torch import Tensor

from tmkt.config import Config
from tmkt.data import Augmentation, PairBatch, RunData, sample_pairs
from tmkt.method.transfer import build_streams
from tmkt.training.trainer import Trainer

OUT = Path(__file__).parent / "gradient_variance.jsonl"
BATCHES, COUNT, AUGMENTATION = 64, 5, Augmentation(padding=2)


def gradients(trainer: Trainer, config: Config, data: RunData, pairs: list[PairBatch]) -> Tensor:
    """[BATCHES, parameters] of the backbone and head, for the classification loss of the mixed stream alone."""
    model, rows = trainer.model.train(), []
    parameters = [p for name, p in model.named_parameters() if "heads.mixed" not in name]
    for number, batch in enumerate(pairs):
        streams = build_streams(
            config.transfer,
            data.train,
            batch,
            progress=0.5,
            event_scale=config.data.events.scale,
            generator=torch.Generator().manual_seed(1000 + number),
        )
        assert streams.mixed is not None
        loss = trainer.task._classification(model(streams.mixed).logits, streams.label)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(rows).double()


def main() -> None:
    target = TARGETS["nmnist"]
    base = everything(target).base.replace(transfer__method="tmkt")
    OUT.write_text("", encoding="utf-8")
    for seed in (1, 2, 3):
        ours = drawn(target, COUNT, base.replace(seed=seed), tuning=False, twins=False)
        generator = torch.Generator().manual_seed(seed)
        batches = [sample_pairs(ours.train, 20, generator, AUGMENTATION) for _ in range(BATCHES)]
        for steps in (0, 30, 150):
            with tempfile.TemporaryDirectory() as folder:
                config = base.replace(seed=seed, out=folder, train__lr=1e-2, train__steps=max(1, steps))
                trainer = Trainer(config, ours)
                if steps:
                    trainer.run()
                for ratio in (0.3, 0.5, 0.7):
                    for varied, pairs in {"all": batches, "mixing": batches[:1] * BATCHES}.items():
                        for mixing in ("time_step", "sample"):
                            mixed = config.replace(transfer__mixing=mixing, transfer__ratio=ratio)
                            rows = gradients(trainer, mixed, ours, pairs)
                            record = {"seed": seed, "steps": steps, "ratio": ratio, "varied": varied, "mixing": mixing}
                            record["trace"] = float(rows.var(0).sum())
                            record["mean_squared_norm"] = float(rows.mean(0).square().sum())
                            with OUT.open("a", encoding="utf-8") as file:
                                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
