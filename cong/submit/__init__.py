"""Jobs on a Ray cluster: what is packed, the checks before it is sent, and the jobs themselves."""
