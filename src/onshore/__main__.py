"""`python -m onshore` is the command."""

from onshore.cli import main

main()
