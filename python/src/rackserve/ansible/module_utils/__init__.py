"""What modules share; runs on hosts, so standard library and Python 3.9 only."""
