"""Surrogate derivatives in Triton; mirrors surrogate.py, NaN included."""

import math

import triton
import triton.language as tl

from ..surrogate import Surrogate

ATAN = tl.constexpr(int(Surrogate.ATAN))
SIGMOID = tl.constexpr(int(Surrogate.SIGMOID))
TRIANGLE = tl.constexpr(int(Surrogate.TRIANGLE))
RECTANGLE = tl.constexpr(int(Surrogate.RECTANGLE))
EXPONENTIAL = tl.constexpr(int(Surrogate.EXPONENTIAL))
SOFT_SIGN = tl.constexpr(int(Surrogate.SOFT_SIGN))
SUPER_SPIKE = tl.constexpr(int(Surrogate.SUPER_SPIKE))
FAST_SIGMOID = tl.constexpr(int(Surrogate.FAST_SIGMOID))
ERF = tl.constexpr(int(Surrogate.ERF))
LOG = tl.constexpr(int(Surrogate.LOG))
LEAKY_RECTANGLE = tl.constexpr(int(Surrogate.LEAKY_RECTANGLE))
FOURIER = tl.constexpr(int(Surrogate.FOURIER))
S2NN = tl.constexpr(int(Surrogate.S2NN))
Q_PSEUDO_SPIKE = tl.constexpr(int(Surrogate.Q_PSEUDO_SPIKE))
LEAKY_RELU = tl.constexpr(int(Surrogate.LEAKY_RELU))
INVERSE = tl.constexpr(int(Surrogate.INVERSE))
LOG_TAILED_RELU = tl.constexpr(int(Surrogate.LOG_TAILED_RELU))
SPIKE_RATE_ESCAPE = tl.constexpr(int(Surrogate.SPIKE_RATE_ESCAPE))
SPARSE_FAST_SIGMOID = tl.constexpr(int(Surrogate.SPARSE_FAST_SIGMOID))
TENT = tl.constexpr(int(Surrogate.TENT))
STRAIGHT_THROUGH = tl.constexpr(int(Surrogate.STRAIGHT_THROUGH))
HALF_PI = tl.constexpr(math.pi / 2)
PI = tl.constexpr(math.pi)
INVERSE_SQRT_PI = tl.constexpr(1 / math.sqrt(math.pi))


@triton.jit
def cosine_of_pi(z):
    """cos(pi z), computed as the sine around the nearest zero; libdevice's cosine needs memory for large arguments."""
    m = tl.floor(z + 1)
    r = PI * (z - (m - 0.5))
    r2 = r * r
    p = 2.6083159809786593541503e-6 * r2 - 0.0001981069071916863322258
    p = p * r2 + 0.00833307858556509017944336
    p = p * r2 - 0.166666597127914428710938
    sine = p * r2 * r + r
    return tl.where(m - 2 * tl.floor(m * 0.5) == 0, sine, -sine)


@triton.jit
def surrogate_derivative(u, alpha, beta, SURROGATE: tl.constexpr):
    if SURROGATE == ATAN:
        z = (HALF_PI * alpha) * u
        g = (0.5 * alpha) / (1 + z * z)
    elif SURROGATE == SIGMOID:
        e = tl.exp(-tl.abs(alpha * u))
        g = alpha * e / ((1 + e) * (1 + e))
    elif SURROGATE == TRIANGLE:
        g = alpha - alpha * alpha * tl.abs(u)
        g = tl.where(g < 0, 0.0, g)
    elif SURROGATE == RECTANGLE:
        g = tl.where(tl.abs(u) < 0.5 / alpha, alpha, 0.0)
    elif SURROGATE == EXPONENTIAL:
        g = 0.5 * alpha * tl.exp(-tl.abs(alpha * u))
    elif SURROGATE == SOFT_SIGN:
        d = 1 + alpha * tl.abs(u)
        g = (0.5 * alpha) / (d * d)
    elif SURROGATE == SUPER_SPIKE:
        d = 1 + tl.abs(u)
        g = alpha / (d * d)
    elif SURROGATE == FAST_SIGMOID:
        d = 1 + alpha * tl.abs(u)
        g = 1 / (d * d)
    elif SURROGATE == ERF:
        z = alpha * u
        g = INVERSE_SQRT_PI * alpha * tl.exp(-z * z)
    elif SURROGATE == LOG:
        g = alpha / (1 + alpha * tl.abs(u))
    elif SURROGATE == LEAKY_RECTANGLE:
        g = tl.where(tl.abs(u) < 0.5 / alpha, alpha, beta)
    elif SURROGATE == FOURIER:
        # cos((2 i + 1) x) = 2 cos(2 x) cos((2 i - 1) x) - cos((2 i - 3) x)
        term = cosine_of_pi(2 * alpha * u)
        twice = 4 * term * term - 2
        before = term
        g = term
        i = 1.0
        while i < beta:
            following = twice * term - before
            before = term
            term = following
            g += term
            i += 1
        g = 4 * alpha * g
    elif SURROGATE == S2NN:
        e = tl.exp(-tl.abs(alpha * u))
        g = tl.where(u < 0, alpha * e / ((1 + e) * (1 + e)), beta / (1 + tl.abs(u)))
    elif SURROGATE == Q_PSEUDO_SPIKE:
        g = tl.exp(-alpha * tl.log(1 + 2 / (alpha - 1) * tl.abs(u)))
    elif SURROGATE == LEAKY_RELU:
        g = tl.where(u >= 0, alpha, beta)
    elif SURROGATE == INVERSE:
        d = 1 / tl.abs(u)
        g = tl.where(d > alpha, alpha, d)
    elif SURROGATE == LOG_TAILED_RELU:
        g = tl.where(u <= 0, alpha, 1 / tl.where(u < 1, 1.0, u))
    elif SURROGATE == SPIKE_RATE_ESCAPE:
        g = alpha * tl.exp(-tl.abs(beta * (u - 1)))
    elif SURROGATE == SPARSE_FAST_SIGMOID:
        d = 1 + alpha * tl.abs(u)
        g = tl.where(u <= beta, 0.0, 1 / (d * d))
    elif SURROGATE == TENT:
        g = tl.where(u >= 0, -alpha, alpha)
    elif SURROGATE == STRAIGHT_THROUGH:
        g = tl.zeros_like(u) + alpha
    else:
        tl.static_assert(False, "unknown surrogate")
    return g
