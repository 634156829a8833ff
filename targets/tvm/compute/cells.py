"""Recurrent cells as loops over their steps: a step reads what the one before it wrote, so they are no expressions.

`a` is G [steps, batch, gates * hidden], what the inputs of all steps give; `r` the transposed weights of the state
[hidden, gates * hidden]; `h0` the first state [batch, hidden]. `y` takes the states of all steps, `h` the last. Each
sequence is walked by itself, with `back` from its end. Where NaN is the `largest` number, it is so
in the gates of a GRU and an LSTM (see `legal.recurrent`).
"""

# The bodies of kernels read the types of their arguments, so they are no strings here.
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - as every kernel of TVM is written

_MOST = 3.4028234663852886e38
_DONE = {"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8}


def rnn(hidden: int, back: bool) -> tirx.PrimFunc:
    """H = tanh(G_t + H R)."""

    @T.prim_func(s_tir=True, private=True)
    def kernel(a: T.handle, r: T.handle, h0: T.handle, y: T.handle, h: T.handle) -> None:
        T.func_attr(_DONE)
        steps = T.int64()
        many = T.int64()
        G = T.match_buffer(a, (steps, many, hidden), "float32")
        R = T.match_buffer(r, (hidden, hidden), "float32")
        first = T.match_buffer(h0, (many, hidden), "float32")
        Y = T.match_buffer(y, (steps, many, hidden), "float32")
        H = T.match_buffer(h, (many, hidden), "float32")
        for n in T.parallel(many):
            S = T.alloc_buffer((hidden,), "float32")
            for j in range(hidden):
                H[n, j] = first[n, j]
            for s in range(steps):
                t = (steps - 1 - s) if back else s
                for j in range(hidden):
                    S[j] = G[t, n, j]
                for k in range(hidden):
                    for j in range(hidden):
                        S[j] = S[j] + H[n, k] * R[k, j]
                for j in range(hidden):
                    H[n, j] = T.tanh(S[j])
                    Y[t, n, j] = H[n, j]

    return kernel


def gru(hidden: int, back: bool, linear_first: bool, largest: bool) -> tirx.PrimFunc:
    """Gates update, reset, and the new state; `b` is added to the product that `linear_first` resets."""

    @T.prim_func(s_tir=True, private=True)
    def kernel(a: T.handle, r: T.handle, h0: T.handle, b: T.handle, y: T.handle, h: T.handle) -> None:
        T.func_attr(_DONE)
        steps = T.int64()
        many = T.int64()
        G = T.match_buffer(a, (steps, many, 3 * hidden), "float32")
        R = T.match_buffer(r, (hidden, 3 * hidden), "float32")
        first = T.match_buffer(h0, (many, hidden), "float32")
        B = T.match_buffer(b, (hidden,), "float32")
        Y = T.match_buffer(y, (steps, many, hidden), "float32")
        H = T.match_buffer(h, (many, hidden), "float32")
        for n in T.parallel(many):
            S = T.alloc_buffer((2 * hidden,), "float32")
            L = T.alloc_buffer((hidden,), "float32")
            K = T.alloc_buffer((hidden,), "float32")
            for j in range(hidden):
                H[n, j] = first[n, j]
            for s in range(steps):
                t = (steps - 1 - s) if back else s
                for j in range(2 * hidden):
                    S[j] = G[t, n, j]
                for k in range(hidden):
                    for j in range(2 * hidden):
                        S[j] = S[j] + H[n, k] * R[k, j]
                for j in range(2 * hidden):
                    if largest:
                        S[j] = T.Select(S[j] < T.float32(_MOST), S[j], T.float32(_MOST))
                    S[j] = T.sigmoid(S[j])
                for j in range(hidden):
                    L[j] = B[j]
                    K[j] = H[n, j] if linear_first else S[hidden + j] * H[n, j]
                for k in range(hidden):
                    for j in range(hidden):
                        L[j] = L[j] + K[k] * R[k, 2 * hidden + j]
                for j in range(hidden):
                    K[j] = S[hidden + j] * L[j] if linear_first else L[j]
                for j in range(hidden):
                    L[j] = G[t, n, 2 * hidden + j] + K[j]
                    if largest:
                        L[j] = T.Select(L[j] < T.float32(_MOST), L[j], T.float32(_MOST))
                    H[n, j] = (T.float32(1) - S[j]) * T.tanh(L[j]) + S[j] * H[n, j]
                    Y[t, n, j] = H[n, j]

    return kernel


def lstm(hidden: int, back: bool, largest: bool) -> tirx.PrimFunc:
    """Gates input, output, forget, and the new cell."""

    @T.prim_func(s_tir=True, private=True)
    def kernel(a: T.handle, r: T.handle, h0: T.handle, c0: T.handle, y: T.handle, h: T.handle, c: T.handle) -> None:
        T.func_attr(_DONE)
        steps = T.int64()
        many = T.int64()
        G = T.match_buffer(a, (steps, many, 4 * hidden), "float32")
        R = T.match_buffer(r, (hidden, 4 * hidden), "float32")
        first = T.match_buffer(h0, (many, hidden), "float32")
        cell = T.match_buffer(c0, (many, hidden), "float32")
        Y = T.match_buffer(y, (steps, many, hidden), "float32")
        H = T.match_buffer(h, (many, hidden), "float32")
        C = T.match_buffer(c, (many, hidden), "float32")
        for n in T.parallel(many):
            S = T.alloc_buffer((4 * hidden,), "float32")
            for j in range(hidden):
                H[n, j] = first[n, j]
                C[n, j] = cell[n, j]
            for s in range(steps):
                t = (steps - 1 - s) if back else s
                for j in range(4 * hidden):
                    S[j] = G[t, n, j]
                for k in range(hidden):
                    for j in range(4 * hidden):
                        S[j] = S[j] + H[n, k] * R[k, j]
                if largest:
                    for j in range(4 * hidden):
                        S[j] = T.Select(S[j] < T.float32(_MOST), S[j], T.float32(_MOST))
                for j in range(hidden):
                    C[n, j] = T.sigmoid(S[2 * hidden + j]) * C[n, j] + T.sigmoid(S[j]) * T.tanh(S[3 * hidden + j])
                    H[n, j] = T.sigmoid(S[hidden + j]) * T.tanh(C[n, j])
                    Y[t, n, j] = H[n, j]

    return kernel
