"""Models of observations, with a utility: where a policy acts."""
