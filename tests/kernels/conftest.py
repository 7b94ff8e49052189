"""The backends and devices that operator tests run on; those that this machine lacks are skipped, named."""

import pytest


@pytest.fixture(
    params=[
        pytest.param(("native", "cpu"), id="native-cpu"),
        pytest.param(("native", "cuda"), id="native-cuda", marks=pytest.mark.cuda),
        pytest.param(("triton", "cuda"), id="triton-cuda", marks=pytest.mark.cuda),
    ]
)
def target(request: pytest.FixtureRequest) -> tuple[str, str]:
    """(backend, device)."""
    return request.param
