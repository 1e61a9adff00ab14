"""What to stay close to: what I would do, what I might do, the demonstrator itself."""
