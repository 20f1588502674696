"""The Triton kernels do what PyTorch's operations do: on a GPU, or else in Triton's interpreter.

pip install --target <folder> triton
PYTHONPATH=<folder> python -m pytest test/unit/losses/test_transducer_kernels.py
"""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest
import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
if DEVICE == "cpu" and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"  # it is read when Triton is imported

from speechkit.losses import node_logits, transducer_kernels, transducer_lattice  # noqa: E402

LENGTHS, SIZES = torch.tensor([13, 7, 1, 5, 2]), torch.tensor([6, 2, 3, 0, 1])


def draw(frames: int = 13, labels: int = 6) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the blank and of the next label, of 7 outputs, fp32."""
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(5, frames, labels + 1, 7, generator=generator)
    log_probs = logits.log_softmax(-1)
    return log_probs[..., 0].clone(), log_probs[:, :, :-1, 1].clone()


def both(blank: Tensor, label: Tensor, lengths: Tensor = LENGTHS, sizes: Tensor = SIZES) -> list:
    """Occupations from PyTorch and from the kernels."""
    plain = transducer_lattice.occupations(blank, label, lengths, sizes)
    fast = transducer_kernels.occupations(blank.to(DEVICE), label.to(DEVICE), lengths, sizes)
    return [plain, transducer_lattice.Occupations(*(x.cpu() for x in fast))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_lattice(dtype):
    plain, fast = both(*(x.to(dtype) for x in draw()))
    assert fast.blank.dtype == dtype
    for a, b in zip(plain, fast):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 if dtype == torch.float32 else 1e-12)


def test_the_lattice_without_labels_and_with_padding_that_is_no_number():
    blank, label = draw()
    for i, (t, u) in enumerate(zip(LENGTHS.tolist(), SIZES.tolist())):
        blank[i, t:], blank[i, :, u + 1 :] = torch.nan, torch.inf
        label[i, t:], label[i, :, u:] = -torch.inf, torch.nan
    for a, b in zip(*both(blank, label)):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    none = torch.zeros_like(SIZES)
    for a, b in zip(*both(blank[:, :, :1], label[:, :, :0], LENGTHS, none)):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_what_no_path_can_have_and_what_is_no_number():
    blank, label = draw()
    label[0, :, 3], blank[1, 3, 1] = -torch.inf, torch.nan
    plain, fast = both(blank, label)
    assert plain.log_prob[0] < -1e20 and fast.log_prob[0] < -1e20
    assert plain.log_prob[1].isnan() and fast.log_prob[1].isnan()
    assert fast.blank[0].isfinite().all() and fast.label[0].isfinite().all()
    for a, b in zip(plain, fast):
        torch.testing.assert_close(a[2:], b[2:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("vocab", [7, 1500])
def test_logits_and_their_gradients(vocab):
    torch.manual_seed(5)
    logits, labels = 3 * torch.randn(4, 6, vocab), torch.randint(1, vocab, (4, 5))
    part = logits[:, :5]  # the rows of a shorter target: a view
    found = transducer_kernels.read_nodes(part.to(DEVICE), labels.to(DEVICE), 0)
    wanted = node_logits.read_nodes(part, labels, 0)
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-6, atol=1e-5)
    of_blank, of_label = -torch.rand(4, 5), -torch.rand(4, 5)
    of_blank[2, 3] = of_label[2, 3] = 0.0
    fast, nodes = logits.clone().to(DEVICE), [x.to(DEVICE) for x in (labels, wanted[0], of_blank, of_label)]
    transducer_kernels.differentiate_(fast[:, :5], nodes[0], 0, *nodes[1:])
    gradient = logits.clone()
    node_logits.differentiate_(gradient[:, :5], labels, 0, wanted[0], of_blank, of_label)
    torch.testing.assert_close(fast.cpu(), gradient, rtol=1e-6, atol=1e-6)
    assert fast[2, 3].abs().sum() == 0 and torch.equal(fast[:, 5].cpu(), logits[:, 5])


def test_rows_of_a_matrix_and_nodes_without_gradient_that_are_no_numbers():
    logits, labels = torch.randn(3, 9, dtype=torch.float64), torch.tensor([1, 8, 4])
    found = transducer_kernels.read_nodes(logits.to(DEVICE), labels.to(DEVICE), 2)
    for a, b in zip(found, node_logits.read_nodes(logits, labels, 2)):
        torch.testing.assert_close(a.cpu(), b, rtol=0, atol=1e-12)
    logits[1] = torch.nan
    weights = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64, device=DEVICE)
    fast = logits.to(DEVICE)
    transducer_kernels.differentiate_(fast, labels.to(DEVICE), 2, found[0], weights, weights)
    assert fast[1].abs().sum() == 0 and fast.isfinite().all()
