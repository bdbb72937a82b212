"""What must hold for every op, one property after the other; `python -m tests.properties` prints which op faces which."""
