"""Experiments on the models, for papers: nothing of the product imports them."""
