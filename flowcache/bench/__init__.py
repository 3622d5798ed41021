"""Policies compared by what they cost and by how close they stay to the unaccelerated model."""
