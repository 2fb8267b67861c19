"""Weights of StyleGANs trained elsewhere."""
