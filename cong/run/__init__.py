"""From an experiment file to results: one run, a grid, a search, and what runs leave behind."""
