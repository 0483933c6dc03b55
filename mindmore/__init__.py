"""The top floor: settings, addresses, processes."""
