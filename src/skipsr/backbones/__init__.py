"""Model families: a folder each. The folder's name is the registry."""
