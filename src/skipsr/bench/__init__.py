"""How fast a model runs here: dense and skipped in turn, in one run."""
