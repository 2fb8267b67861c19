"""The ``genmix`` command: each command parses, calls one function of the package, and prints."""
