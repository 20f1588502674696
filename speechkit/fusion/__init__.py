"""How a speech encoder and a text encoder read each other: one published fusion, or part of one, a file.

Tensors between these parts are padded, `(B, T, D)` with lengths `(B,)`; inside, they work on packed frames.
"""
