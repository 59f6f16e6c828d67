"""The commands of evaluate/main.py, one file each: its flags, and what it runs."""
