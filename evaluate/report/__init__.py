"""The report on a results folder: its figures and tables, and the page that shows them."""
