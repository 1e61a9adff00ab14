"""Context trees: the exact Bayes mixture over every tree source up to a depth, and the minimum over the believed ones."""
