"""What `cong init` writes: a first experiment and a profile, to be changed."""
