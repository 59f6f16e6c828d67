"""The format between the stages, and the ground floor: it imports no other folder."""
