"""The two engines of a selection step: compiled loops on the CPU, Triton kernels on a GPU."""
