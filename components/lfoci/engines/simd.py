"""Eight float64 numbers that numba treats as one: the vector type of the CPU kernels.

A candidate's search is a loop with a branch at each turn, which no compiler vectorises by itself. Eight
candidates that walk the same list side by side are eight lanes of one register (AVX-512; two with AVX, four
with NEON), and the branch asks whether any lane still wants to go on. Inside numba-compiled functions:

    a + b, a - b, a * b     lane by lane, each rounded as numpy rounds it: never fused into one instruction
    a < b, a <= b           a mask
    mask & mask
    spread(x)               x in every lane
    pick(mask, a, b)        a where the mask holds, b elsewhere
    some(mask)              whether the mask holds in any lane
    load(array, row)        one row of an (N, 8) C-contiguous float64 array
    store(array, row, a)    the same, written
"""

from __future__ import annotations

# ruff: noqa: ARG001 - numba names and counts the arguments
# mypy: disable-error-code="no-untyped-call"
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

WIDTH = 8

_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)
_BITS = ir.VectorType(ir.IntType(1), WIDTH)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)


class LanesType(types.Type):
    """Numba's name for 8 float64."""

    def __init__(self) -> None:
        super().__init__(name=f"float64x{WIDTH}")


class MaskType(types.Type):
    """Numba's name for 8 truth values."""

    def __init__(self) -> None:
        super().__init__(name=f"boolx{WIDTH}")


LANES = LanesType()
MASK = MaskType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, _VECTOR)


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, _BITS)


def _instruction(typed: Callable[..., Any]) -> Any:
    """numba's `intrinsic`, which says nothing of types: what it makes is called from compiled code alone."""
    return intrinsic(typed)


def _operator(function: Any, operand: types.Type, result: types.Type, emit: Callable[..., Any]) -> None:
    """Teach numba `function(operand, operand) -> result`, written by one LLVM instruction."""

    class Template(ConcreteTemplate):
        cases = [signature(result, operand, operand)]  # noqa: RUF012 - numba reads a class attribute

    def lower(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
        return emit(builder, *arguments)

    infer_global(function)(Template)
    lower_builtin(function, operand, operand)(lower)


_operator(operator.add, LANES, LANES, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, LANES, LANES, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, LANES, LANES, lambda builder, a, b: builder.fmul(a, b))
_operator(operator.lt, LANES, MASK, lambda builder, a, b: builder.fcmp_ordered("<", a, b))
_operator(operator.le, LANES, MASK, lambda builder, a, b: builder.fcmp_ordered("<=", a, b))
_operator(operator.and_, MASK, MASK, lambda builder, a, b: builder.and_(a, b))


def _place(context: Any, builder: Any, kind: Any, array: Any, row: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    start = builder.gep(data, [builder.mul(row, ir.Constant(_INT64, WIDTH))])
    return builder.bitcast(start, _VECTOR.as_pointer())


@_instruction
def load(_typing: Any, array: Any, row: Any) -> Any:
    """Row `row` of an (N, 8) C-contiguous float64 array."""

    def emit(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
        value = builder.load(_place(context, builder, kind.args[0], *arguments))
        value.align = 8  # numpy promises the alignment of one number, not of a register
        return value

    return LANES(array, types.int64), emit


@_instruction
def store(_typing: Any, array: Any, row: Any, lanes: Any) -> Any:
    """Write `lanes` to row `row` of an (N, 8) C-contiguous float64 array."""

    def emit(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
        written = builder.store(arguments[2], _place(context, builder, kind.args[0], *arguments[:2]))
        written.align = 8
        return context.get_dummy_value()

    return types.none(array, types.int64, LANES), emit


@_instruction
def spread(_typing: Any, number: Any) -> Any:
    """`number` in every lane."""

    def emit(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
        empty = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(empty, arguments[0], ir.Constant(_INT32, 0))
        everywhere = ir.Constant(ir.VectorType(_INT32, WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(first, empty, everywhere)

    return LANES(types.float64), emit


@_instruction
def pick(_typing: Any, mask: Any, held: Any, other: Any) -> Any:
    """`held` where the mask holds, `other` elsewhere."""

    def emit(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return LANES(MASK, LANES, LANES), emit


@_instruction
def some(_typing: Any, mask: Any) -> Any:
    """Whether the mask holds in any lane."""

    def emit(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
        packed = ir.IntType(WIDTH)
        return builder.icmp_unsigned("!=", builder.bitcast(arguments[0], packed), ir.Constant(packed, 0))

    return types.boolean(MASK), emit
