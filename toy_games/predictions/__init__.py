"""What theory says of each dynamics."""
