"""``python -m genmix_transforms`` is the ``genmix`` command (for ``accelerate launch -m`` and ``torchrun -m``)."""

from genmix_transforms.cli.main import main

main()
