"""A universal monotone machine: eight instructions, every program to a bit limit, and the mixture over them."""
