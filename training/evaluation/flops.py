"""Floating-point operations, counted where torch's counter is silent too."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_flops(run: Callable[[], object]) -> int:
    """Count the operations of matrix products and attention while ``run`` runs; a multiply-add counts as two.

    torch's own counter gives 0 for attention on the CPU and for grouped products, so their formulas are added. Masked
    attention counts as full, which is what the kernel computes. Quantized kernels are not counted: count the model they
    were made from.

    Parameters
    ----------
    run : does the work once, in this thread.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    with counter:
        run()
    return int(counter.get_total_flops())


def _formulas() -> dict[Any, Callable[..., int]]:
    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        aten._grouped_mm: _grouped_product,
    }


def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Scores and the weighted sum: 2 B H T S D each."""
    (batch, heads, queries, dim), keys, out_dim = q, k[-2], v[-1]
    return int(2 * batch * heads * queries * keys * (dim + out_dim))


def _attention_backward(gradient: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:  # noqa: ARG001
    """Scores again, then the gradients of weights, v, q and k: five products, three over D and two over v's D."""
    (batch, heads, queries, dim), keys, out_dim = q, k[-2], v[-1]
    return int(2 * batch * heads * queries * keys * (3 * dim + 2 * out_dim))


def _grouped_product(a: Any, b: Any, *_: Any, **__: Any) -> int:
    """Every row of ``a`` meets one matrix of ``b``; the gradient of the matrices is a product of two 2-D operands."""
    return int(2 * a[0] * a[1] * b[-1])
