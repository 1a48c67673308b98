"""Compiled kernels: they never validate, raise, log or read a clock; the façades beside them do."""
