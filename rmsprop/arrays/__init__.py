"""Arrays of any library: dtypes, places in memory, and what is asked of them."""
