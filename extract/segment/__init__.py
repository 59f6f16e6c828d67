"""Segmenters: each turns a slide into outlines of nuclei."""
