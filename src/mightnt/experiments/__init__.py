"""One module per row of results: config at the top, record out."""
