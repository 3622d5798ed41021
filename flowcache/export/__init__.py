"""Hands finished videos on, in the forms that people train and publish with."""
