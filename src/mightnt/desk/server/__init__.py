"""A served policy: the usual chat protocol for clients, a page for the people whom it asks."""
