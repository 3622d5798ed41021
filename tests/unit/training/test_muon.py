"""The optimizer of the blocks' matrices against torch's own, whose products are bfloat16."""

import pytest
import torch

from training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12)])
def test_an_update_keeps_singular_vectors_and_has_values_near_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    in_its_own_axes = u.T @ orthogonal(matrix) @ v.T
    values = in_its_own_axes.diagonal()
    assert 0.6 < values.min() and values.max() < 1.3
    torch.testing.assert_close(in_its_own_axes, values.diag(), atol=1e-4, rtol=0)


def test_steps_are_those_of_torch_but_for_its_rounding():
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(24, 64))
    theirs = torch.nn.Parameter(ours.detach().clone())
    optimizers = (
        Muon([ours], lr=0.01),
        torch.optim.Muon([theirs], lr=0.01, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    )
    begun = ours.detach().clone()
    for _ in range(4):
        gradient = torch.randn(24, 64)
        for matrix, optimizer in zip((ours, theirs), optimizers, strict=True):
            matrix.grad = gradient.clone()
            optimizer.step()
    assert (ours - theirs).norm() < 0.03 * (ours - begun).norm()
