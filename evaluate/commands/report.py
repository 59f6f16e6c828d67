"""One self-contained HTML file."""

import argparse
from pathlib import Path

from evaluate.commands import flags
from evaluate.commands.sheet import draw_sheet


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    page = command.add_argument_group("page")
    page.add_argument("results", type=Path, help="the folder that the other commands wrote to")
    flags.path(page, "--out", "FILE.html", "the page to write", required=True)
    page.add_argument("--title", default="LEMON: what the encoder learnt", help="of the page")
    more = command.add_argument_group("what else is on it")
    beside = "add the figures and tables of these folders, as composition/ runs/compare/results"
    flags.paths(more, "--beside", "DIR", beside)
    flags.paths(more, "--extra", "FILE.png", "further pictures")
    more.add_argument("--cells", metavar="DIR", help="add a contact sheet of extracted cells")
    more.add_argument("--shards", metavar="DIR", help="add one of what was trained on")


def run(options: argparse.Namespace) -> None:
    """Write the report, after drawing the contact sheets that were asked for."""
    from evaluate.report.report import write_report

    for kind in ("cells", "shards"):
        if getattr(options, kind):
            draw_sheet(kind, getattr(options, kind), options.results, seed=0)
    write_report(options.results, options.out, options.extra, options.title, options.beside)
    print(f"{options.out}: open it in a browser; it is one file, with all that it shows")
