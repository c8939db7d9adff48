"""The numeric core: tensors in, tensors out. No I/O, no environment, no global seeds."""
