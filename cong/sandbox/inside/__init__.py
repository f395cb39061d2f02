"""What runs inside of the sandbox: standard library only, started as a script, never imported by the outside."""
