"""What a ring costs: what it sends and computes, its time against one kernel, and its error.

    python -m benchmarks.ring [gloo|loop|errors|count ...] [--json FILE]     # default: all four
    python -m benchmarks.ring --count                                       # the same as: count

`count` counts, without computing: bytes and FLOPs against the least that is possible, for up to 1,024 ranks. `loop`
times N virtual ranks in one process against one kernel over the whole sequence. `gloo` does so for a ring of processes,
by layout and mask. `errors` compares outputs and gradients with fp64, beside torch's own kernel.
"""
