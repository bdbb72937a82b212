"""What people run: one page a model. `python -m demos` lists them in teaching order."""
