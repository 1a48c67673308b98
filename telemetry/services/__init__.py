"""Room of telemetry."""
