"""The losses of TMKT (arXiv 2511.12150) and its rivals, as pure functions on per-step tensors. All return float32."""

import torch
import torch.nn.functional as F
from torch import Tensor


def mean_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of the time-mean logits [T, B, K] -> scalar. label: int64 [B], or shares of the classes [B, K]."""
    return F.cross_entropy(logits.float().mean(0), label)


def tet(
    logits: Tensor, label: Tensor, *, theta: float, weight: float = 1e-3, step_weight: Tensor | None = None
) -> Tensor:
    """Temporal efficient training (Deng et al., ICLR 2022, arXiv 2202.11946).

    mean_t w[t] ((1 - weight) CE(z[t], y) + weight MSE(z[t], theta)); theta is the firing threshold.
    logits [T, B, K], label int64 [B] or shares of the classes [B, K], step_weight w [T] (None: ones) -> scalar.
    """
    logits = logits.float()
    T, batch = logits.shape[:2]
    every_step = label.expand(T, *label.shape).flatten(0, 1)
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), every_step, reduction="none").view(T, batch).mean(1)
    per_step = (1 - weight) * cross_entropy + weight * (logits - theta).square().mean((1, 2))
    return _mean_over_steps(per_step, step_weight)


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear centred kernel alignment of two batches of features, step by step (arXiv 1905.00414).

    |X'Y|^2 / (|X'X| |Y'Y|) with Frobenius norms and features centred over the batch; 1 for features equal
    up to rotation and scale, 0 for uncorrelated ones, and 0 if one side does not vary over the batch.

    Args:
        x: [T, B, Dx], any float dtype; computed in float32 even under autocast.
        y: [T, B, Dy], whose row b belongs to row b of x.

    Returns:
        float32 [T], in [0, 1].

    Raises:
        ValueError: shapes do not match, or B < 2 (nothing to correlate).
    """
    if x.dim() != 3 or y.dim() != 3 or x.shape[:2] != y.shape[:2]:
        raise ValueError(f"x and y: expected [T, B, D] with equal T and B, got {tuple(x.shape)} and {tuple(y.shape)}")
    if x.shape[1] < 2:
        raise ValueError(f"x and y: CKA compares samples of a batch, expected B >= 2, got {x.shape[1]}")
    with torch.autocast(x.device.type, enabled=False):
        x, y = _centre(x), _centre(y)
        if x.shape[1] <= min(x.shape[2], y.shape[2]):
            # The same three norms from the B x B Gram matrices, as |X'Y|^2 = <XX', YY'>: far smaller if B < D.
            kx, ky = x @ x.mT, y @ y.mT
            cross, self_x, self_y = (kx * ky).sum((1, 2)), kx.square().sum((1, 2)), ky.square().sum((1, 2))
        else:
            cross, self_x, self_y = ((a.mT @ b).square().sum((1, 2)) for a, b in ((x, y), (x, x), (y, y)))
        # Features have norm 1 (see _centre), so self_x * self_y is 0 or at least 1 / D^2, without underflow.
        return cross * (self_x * self_y).clamp_min(torch.finfo(torch.float32).tiny).rsqrt()


def _centre(x: Tensor) -> Tensor:
    """Subtract the batch mean and scale each step to norm 1. CKA ignores scale, and float32 then never overflows."""
    x = x.float()
    x = x - x.mean(1, keepdim=True)
    return x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp_min(1e-12)


def domain_alignment(mixed: Tensor, event: Tensor, step_weight: Tensor | None = None) -> Tensor:
    """DA: mean_t w[t] (1 - |CKA(f_m[t], f_e[t])|), features [T, B, D], w [T] (None: ones) -> scalar in [0, 1]."""
    return _mean_over_steps(1 - linear_cka(mixed, event).abs(), step_weight)


def _mean_over_steps(per_step: Tensor, step_weight: Tensor | None) -> Tensor:
    return (per_step if step_weight is None else step_weight * per_step).mean()


def modality_guidance(logits: Tensor, is_event: Tensor) -> Tensor:
    """MAG: binary cross-entropy of "this step shows events", mean over steps and samples.

    logits [T, B], is_event [T, B] of 0 and 1, or shares in a step of mixed samples -> scalar.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), is_event.float())


def ratio_perception(logits: Tensor, ratio: Tensor, kind: str = "mse") -> Tensor:
    """MRP: predict each sample's share of event steps rho = n / T.

    logits [B], ratio [B] in [0, 1] -> scalar; "mse" on the sigmoid output, "bce" with rho as a soft target.
    """
    if kind == "mse":
        return F.mse_loss(torch.sigmoid(logits.float()), ratio.float())
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits.float(), ratio.float())
    raise ValueError(f"kind: expected 'mse' or 'bce', got {kind!r}")


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Knowledge distillation (Hinton et al., arXiv 1503.02531) of the time-mean logits.

    temperature^2 KL(softmax(teacher / temperature) | softmax(student / temperature)), mean over samples; the square
    makes the gradient's size independent of the temperature. logits [T, B, K], teacher [B, K] -> scalar.
    """
    student = F.log_softmax(logits.float().mean(0) / temperature, dim=1)
    target = F.log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, target, reduction="batchmean", log_target=True)
