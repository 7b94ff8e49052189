"""Tensors at the limits of the operators: views off the usual alignment, and empty tensors."""

import pytest
import torch

import tmkt_kernels as tk
from tmkt_kernels.ops.lif.recurrence import Recurrence
from tmkt_kernels.testing import assert_gradient_close, assert_spikes_equal

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])


def at_offset(tensor, offset):
    """Return the same values as a view that starts `offset` elements into its storage."""
    storage = tensor.new_zeros(tensor.numel() + offset)
    view = storage[offset:].view(tensor.shape)
    view.copy_(tensor)
    return view


@pytest.mark.parametrize("offset", [1, 2, 4, 8])
@dtypes
def test_views_at_an_offset(dtype, offset, target):
    """A vector of 8 halves goes with 8 floats of v_init: 32 bytes, for which an alignment of 16 is not enough."""
    backend, device = target
    x = torch.randn(3, 2, 64, device=device).to(dtype) * 2
    v_init = torch.randn(2, 64, device=device)
    for of_x, of_v in ((offset, 0), (0, offset), (offset, offset)):
        results = []
        for name in (backend, "reference"):
            leaves = [at_offset(x, of_x).requires_grad_(), at_offset(v_init, of_v).requires_grad_()]
            outputs = tk.lif(*leaves, return_v=True, backend=name)
            grads = [at_offset(torch.ones_like(o), of_x) for o in outputs]
            results.append((outputs, torch.autograd.grad(outputs, leaves, grads)))
        (outputs, grads), (expected, expected_grads) = results
        assert_spikes_equal(outputs[0], expected[0])
        assert all(torch.equal(a, e) for a, e in zip(outputs, expected, strict=True))
        for a, e in zip(grads, expected_grads, strict=True):
            assert_gradient_close(a, e, dtype)


def test_gradients_of_parameters_that_are_floats(target):
    """A direct call may request them; the gradients are then those of coefficients shared by all neurons."""
    backend, device = target
    operator = getattr(torch.ops.tmkt, "lif_bwd" + ("_triton" if backend == "triton" else ""))
    x, grad = torch.randn(2, 4, 3, 8, device=device)
    params = Recurrence.lif(tau=1.7).scalars()
    given = torch.tensor(params[:5], device=device)[:, None]
    results = [operator(grad, None, None, x, None, c, 1, *params, True) for c in (None, given)]
    for a, e in zip(*results, strict=True):
        assert torch.equal(a, e)


def test_no_channels(target):
    backend, device = target
    x = torch.empty(3, 2, 0, 4, device=device, requires_grad=True)
    none = torch.empty(0, device=device)
    leaves = [x, none.clone().requires_grad_(), none.clone().requires_grad_()]
    outputs = tk.bn_lif(*leaves, mean=none, var=none, backend=backend)
    grads = torch.autograd.grad(outputs[0].sum(), leaves)
    assert [g.shape for g in grads] == [t.shape for t in leaves]
