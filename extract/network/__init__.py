"""HoverFast's network in process: its architecture, its nuclei, and how it is trained."""
