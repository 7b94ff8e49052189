"""Stages of a step: their times fill the step, each without those inside it."""

import time

import pytest
import torch

from tmkt.stages import REST, stage, timed

CPU = torch.device("cpu")


@stage("inner")
def wait(seconds):
    """Wait."""
    time.sleep(seconds)
    return seconds


def test_a_stage_counts_its_own_time_and_the_rest_fills_the_block():
    began = time.perf_counter()
    with timed(CPU) as seconds:
        with stage("outer"):
            time.sleep(0.02)
            assert wait(0.05) == 0.05
            wait(0.05)
        time.sleep(0.01)
    whole = time.perf_counter() - began
    assert sum(seconds.values()) == pytest.approx(whole, abs=5e-3)
    assert (seconds["inner"] >= 0.1, seconds["outer"] >= 0.02, seconds[REST] >= 0.01) == (True, True, True)
    assert seconds["outer"] < whole - 0.1


def test_a_stage_alone_does_nothing_and_errors_pass_through():
    assert wait(0.0) == 0.0
    assert (wait.__name__, wait.__doc__) == ("wait", "Wait.")
    with pytest.raises(KeyError), timed(CPU) as seconds, stage("broken"):
        raise KeyError
    assert seconds.keys() == {REST, "broken"}
    with stage("after"):
        pass
    assert "after" not in seconds


@pytest.mark.cuda
def test_work_of_a_gpu_counts_for_its_stage():
    x = torch.rand(4096, 4096, device="cuda")
    x @ x  # loads the library
    with timed(x.device) as seconds:
        with stage("product"):
            for _ in range(10):
                x @ x
        with stage("nothing"):
            pass
    assert seconds["product"] > 5 * seconds["nothing"]
