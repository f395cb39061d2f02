"""The weak pair as a model inside vLLM."""
