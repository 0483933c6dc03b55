"""What the Django side of the relay does; one module per noun."""
