"""What must hold for every op; `python -m tests.properties` prints which op faces which property."""
