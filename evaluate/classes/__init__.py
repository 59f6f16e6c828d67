"""Classes of nuclei: a classifier to keep, what it says of slides, how many of each there are."""
