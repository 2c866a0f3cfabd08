"""Toxicity of texts, by a packaged model and by word lists. Neither is a judge: see ``docs/bias.md`` for what they miss."""
