"""The theorems, each computed: claims, numbers with their kind and interval, figures."""
