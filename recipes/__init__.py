"""Functions that return complete configurations, named for what they were proven on."""
