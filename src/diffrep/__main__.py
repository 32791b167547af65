"""python -m diffrep."""

from diffrep.cli import main

main()
