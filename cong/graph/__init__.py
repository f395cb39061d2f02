"""The stage graph: what is computed (stage, fingerprint), where it is kept (store), how it is run (runner)."""
