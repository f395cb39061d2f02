"""`cong align`: the whole method on one's own models, without an experiment file."""
