from __future__ import annotations

import pytest
import torch
from torch import nn

from crossview.methods.handover import take_over


class Net(nn.Module):
    def __init__(self, *, head: int | None = None, decoder: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        if head:
            self.head = nn.Linear(4, head)
        if decoder:
            self.decoder = nn.Linear(4, 3)


def test_the_encoder_goes_over_and_the_rest_is_named() -> None:
    before, after = Net(decoder=True), Net(head=2)
    drawn = after.head.weight.clone()
    lines = take_over(after, before.state_dict(), fresh=("head.",), dropped=("decoder.",))
    assert torch.equal(after.encoder.weight, before.encoder.weight)
    assert torch.equal(after.head.weight, drawn)
    assert lines == ["head.*: stays as drawn", "decoder.*: 2 weights not taken over"]


def test_a_fresh_part_stays_fresh_even_where_the_weights_have_one() -> None:
    before, after = Net(head=5), Net(head=2)
    drawn = after.head.weight.clone()
    lines = take_over(after, before.state_dict(), fresh=("head.",))
    assert torch.equal(after.head.weight, drawn)
    assert lines == ["head.*: stays as drawn", "head.*: 2 weights not taken over"]


def test_whatever_is_not_accounted_for_is_refused_and_nothing_changes() -> None:
    after = Net(head=2)
    old = after.encoder.weight.clone()
    with pytest.raises(
        ValueError, match=r"decoder\.bias is unknown; decoder\.weight is unknown; head\.bias is missing"
    ):
        take_over(after, Net(decoder=True).state_dict())
    with pytest.raises(ValueError, match=r"head\.weight is \(5, 4\), not \(2, 4\)"):
        take_over(after, Net(head=5).state_dict())
    assert torch.equal(after.encoder.weight, old)
