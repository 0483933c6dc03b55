"""Counters to usage records to a journal on disk; the database's side is `relay.services.shipping`.

Nothing here imports Django: this is the part of metering that runs inside the relay process.
"""
