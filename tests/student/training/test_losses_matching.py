"""Matching loss: against the cross entropy of torch, and by what it must prefer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from student.training.losses_matching import TEMPERATURE, matching_loss


@pytest.fixture
def features():
    """[1, 2, 6, 8, 5]: two frames of 6 x 8 cells, features of length 1."""
    return F.normalize(
        torch.randn(1, 2, 6, 8, 5, generator=torch.Generator().manual_seed(0)), dim=-1
    )


def test_at_a_cell_it_is_the_cross_entropy_with_that_cell(features):
    points = F.normalize(torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(1)), dim=-1)
    xy = torch.tensor([[[[2, 3], [7, 5]], [[0, 0], [4, 1]], [[6, 2], [1, 4]]]]).float()
    logits = torch.einsum("nc,thwc->nthw", points[0], features[0]).flatten(2) / TEMPERATURE
    cells = (xy[0, ..., 1] * 8 + xy[0, ..., 0]).long()
    expected = F.cross_entropy(logits.flatten(0, 1), cells.flatten())
    torch.testing.assert_close(matching_loss(features, points, xy, torch.ones(1, 3, 2)), expected)


def test_between_two_cells_it_is_the_mean_of_both(features):
    point = features[:, :1, 2, 3]
    left, middle, right = (
        matching_loss(
            features, point, torch.tensor([x, 2.0]).expand(1, 1, 2, 2), torch.ones(1, 1, 2)
        )
        for x in (3.0, 3.5, 4.0)
    )
    torch.testing.assert_close(middle, (left + right) / 2)


def test_what_weighs_nothing_changes_nothing_and_gets_no_gradient(features):
    features = features.requires_grad_()
    xy = torch.tensor([[[2.0, 3.0], [700.0, -3.0]]])[None]
    weight = torch.tensor([[[1.0, 0.0]]])
    loss = matching_loss(features, features[:, 1, :1, 0].detach(), xy, weight)
    loss.backward()
    assert not features.grad[:, 1].any()
    assert features.grad[:, 0].any()
    assert matching_loss(features, features[:, 1, :1, 0], xy, torch.zeros(1, 1, 2)) == 0


def test_a_point_that_looks_like_its_own_cell_loses_less_than_one_that_looks_like_another(features):
    xy, weight = torch.tensor([2.0, 3.0]).expand(1, 1, 2, 2), torch.tensor([[[1.0, 0.0]]])
    own, other = features[:, 0, 3:4, 2], features[:, 0, 0:1, 7]
    assert matching_loss(features, own, xy, weight) < matching_loss(features, other, xy, weight) - 1
