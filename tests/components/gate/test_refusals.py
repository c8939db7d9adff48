from __future__ import annotations

import pytest

from oubli.components.gate.evidence import Step
from oubli.components.gate.refusals import REMEDIES, RefusalCode, refusal


@pytest.mark.parametrize("code", list(RefusalCode))
@pytest.mark.parametrize("step", list(Step))
def test_every_refusal_says_what_helps(code, step):
    reason = refusal(code, "Found.", step)
    assert reason.sentence == f"Found. {REMEDIES[code][step]}"
    assert reason.remedy.endswith(".")


def test_retraining_alone_helps_only_where_a_chain_has_lost_too_much():
    alone = {code for code in RefusalCode if REMEDIES[code][Step.NEWTON].startswith("The losses of a chain")}
    assert alone == {RefusalCode.ACCURACY_FELL_SINCE_TRAINING, RefusalCode.LOSS_ROSE_SINCE_TRAINING}
    for code in set(RefusalCode) - alone:
        for step in Step:
            assert not REMEDIES[code][step].startswith("Where that is not enough"), (code, step)
