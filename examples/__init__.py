"""Small services that run. Each is executed by a test in tests/journeys."""
