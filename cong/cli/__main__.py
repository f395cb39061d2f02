"""`python -m cong.cli`."""

from cong.cli.app import main

main()
