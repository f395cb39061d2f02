"""The paper: its tables as cells and blocks, its published numbers, its observations."""
