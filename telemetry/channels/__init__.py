"""Room of telemetry: how operators are told. Each channel is a module behind the interface in ``channel``."""
