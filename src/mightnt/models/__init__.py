"""Predictive models (nu): what the demonstrator may be like."""
