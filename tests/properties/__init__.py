"""What must hold for every op; `python -m tests.properties` prints which property is tested for which op."""
