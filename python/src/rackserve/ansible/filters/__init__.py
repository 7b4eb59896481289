"""Filters: from inventory data to the functions of this package."""
