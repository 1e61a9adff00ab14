"""What was promised and what was kept, read from records."""
