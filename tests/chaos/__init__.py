"""Processes killed at random under load: what is said to be kept must be there in the end."""
