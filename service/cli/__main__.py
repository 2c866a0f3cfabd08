"""``python -m service.cli``: the command without its script."""

from service.cli.app import main

main()
