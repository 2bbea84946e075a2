"""Frozen values that travel between the database, the services, the worker and the pages."""
