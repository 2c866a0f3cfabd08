"""Toxicity by a packaged model and by word lists. Neither is a judge: ``docs/bias.md`` says what they miss."""
