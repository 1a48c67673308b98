"""Numba kernels of telemetry: they see arrays and numbers only; their callers check shapes and dtypes."""
