"""The synthetic world: knowledge, prompts, corpus, exact reward, tokenizers and tiny model families for a CPU."""
