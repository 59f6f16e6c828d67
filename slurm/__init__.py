"""The whole pipeline on a SLURM cluster: recipes, and what of a campaign is done and missing."""
