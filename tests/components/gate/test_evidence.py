from __future__ import annotations

import math
from dataclasses import replace

import pytest
from gate_evidence import GOOD

from oubli.components.gate.limits import GateLimits
from oubli.components.gate.verdict import judge


def test_the_distance_bound_needs_strong_convexity():
    assert judge(replace(GOOD, l2=1e-2), GateLimits()).distance_bound == pytest.approx(1e-4)
    assert judge(replace(GOOD, l2=1e-2, convex=False), GateLimits()).distance_bound is None
    assert judge(replace(GOOD, l2=0.0), GateLimits()).distance_bound is None
    assert judge(GOOD, GateLimits()).distance_bound is None
    assert judge(replace(GOOD, l2=1e-2, gradient_after=math.nan), GateLimits()).distance_bound is None
