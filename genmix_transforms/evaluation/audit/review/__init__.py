"""A page on this machine, on which an expert accepts and rejects a bank's images, or tells them from real ones."""
