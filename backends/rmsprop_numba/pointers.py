"""Memory at addresses, for compiled code that works through tables of them."""

from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.np.arrayobj import make_array, populate_array

word = ir.IntType(64)
intrinsic: Any = extending.intrinsic  # makes functions of fewer arguments, which only Numba can type


@intrinsic
def word_at(typingctx, address):
    """Return the word of 64 bits at an address."""

    def codegen(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    return types.int64(types.int64), codegen


@intrinsic
def int_at(typingctx, address):
    """Return the C ``int`` at an address."""

    def codegen(context, builder, signature, arguments):
        number = builder.load(builder.inttoptr(arguments[0], ir.IntType(32).as_pointer()))
        return builder.sext(number, ir.IntType(64))

    return types.int64(types.int64), codegen


@intrinsic
def stretch(typingctx, address, start, size, like):
    """Return `size` elements of the array at an address, with the dtype of `like`; None if that is None."""
    if isinstance(like, types.NoneType):
        return types.none(address, start, size, like), lambda context, *_: context.get_dummy_value()
    kind = types.Array(like.dtype, 1, "C")

    def codegen(context, builder, signature, arguments):
        address, start, size, _ = arguments
        array = make_array(kind)(context, builder)
        itemsize = address.type(like.dtype.bitwidth // 8)
        first = builder.add(address, builder.mul(start, itemsize))
        populate_array(array, builder.inttoptr(first, array.data.type), [size], [itemsize], itemsize, None)
        return array._getvalue()

    return kind(types.int64, types.int64, types.int64, like), codegen


@intrinsic(prefer_literal=True)
def on_stack(typingctx, size, like):
    """Return memory for so many elements, a constant, of the dtype of `like`; it lasts as long as the function."""
    if not isinstance(size, types.IntegerLiteral):
        return None
    kind, count = types.Array(like.dtype, 1, "C"), size.literal_value

    def codegen(context, builder, signature, arguments):
        element = context.get_data_type(like.dtype)
        first = cgutils.alloca_once(builder, ir.ArrayType(element, count))
        array, word = make_array(kind)(context, builder), ir.IntType(64)
        itemsize = context.get_abi_sizeof(element)
        data = builder.bitcast(first, array.data.type)
        populate_array(array, data, [word(count)], [word(itemsize)], word(itemsize), None)
        return array._getvalue()

    return kind(size, like), codegen


@intrinsic
def entry(typingctx, array, i):
    """Return the two numbers in a row of an array of doubles of shape (n, 2); None if that is None."""
    if isinstance(array, types.NoneType):
        return types.none(array, i), lambda context, *_: context.get_dummy_value()
    pair = types.UniTuple(types.float64, 2)

    def codegen(context, builder, signature, arguments):
        data, first = make_array(array)(context, builder, arguments[0]).data, builder.shl(arguments[1], word(1))
        places = [first, builder.add(first, word(1))]
        return context.make_tuple(builder, pair, [builder.load(builder.gep(data, [place])) for place in places])

    return pair(array, types.int64), codegen


@intrinsic
def prefetch(typingctx, address):
    """Let the line of the cache that an address lies in be fetched, to be written to; it need not be valid."""

    def codegen(context, builder, signature, arguments):
        word, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        builder.call(function, [builder.inttoptr(arguments[0], pointer), word(1), word(3), word(1)])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@intrinsic
def described(typingctx, function, array, target):
    """Let a C function describe a Python object at an address in memory at another; tell whether it did.

    It returns 0, or else has set an error of Python, which is taken back.
    """

    def codegen(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(32), [word, word]).as_pointer()
        status = builder.call(builder.inttoptr(arguments[0], kind), arguments[1:])
        has_failed = builder.icmp_signed("!=", status, ir.Constant(status.type, 0))
        with builder.if_then(has_failed, likely=False):
            context.get_python_api(builder).err_clear()
        return builder.not_(has_failed)

    return types.boolean(types.int64, types.int64, types.int64), codegen
