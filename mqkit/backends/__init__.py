"""The brokers that mqkit comes with; each module is a plugin of its own and imports its driver on first use."""
