"""Everything that touches the world: MQTT, formats, store, alerts, API, console, command line."""
