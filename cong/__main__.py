"""`python -m cong`."""

from cong.cli.app import main

main()
