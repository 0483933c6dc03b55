"""PostgreSQL and Valkey from Python wheels, for `manage.py up` and for the tests.

Both listen on unix sockets in a private directory and nowhere else: who may pass through that
directory (its owner and root) is who may connect.
"""
