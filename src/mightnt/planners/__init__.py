"""The best policy a constraint allows, computed exactly."""
