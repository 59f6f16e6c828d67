"""Write embeddings and their manifests."""

import argparse

from evaluate.commands import flags
from evaluate.commands.inputs import distinct_benchmarks, open_encoders
from shards.command_line import check_part


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoder(command, compiled=True, needed=False)
    data = command.add_argument_group("data")
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument("--benchmark", nargs="+", metavar="DIR", help="folders of benchmarks")
    source.add_argument("--shards", metavar="DIR", help="every cell of a data set, streamed")
    data.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="of the file"
    )
    flags.run(command, parts=True, overwrite=True)


def run(options: argparse.Namespace) -> None:
    """Write the embeddings of every encoder on every benchmark, or of a data set's cells."""
    from evaluate.embeddings import array_path, embed
    from evaluate.encoders import check_encoders
    from evaluate.shard_embeddings import embed_shards

    check_part(options)
    names = list(check_encoders(options.encoder))
    if options.shards:
        sources = [options.shards]
    else:
        found = [benchmark for _, benchmark in distinct_benchmarks(options.benchmark)]
        whole = [benchmark.part_of or benchmark for benchmark in found]
        sources = list({benchmark.name: benchmark for benchmark in whole}.values())
    pairs = [(name, i) for name in names for i in range(len(sources))]
    mine = pairs[options.part :: options.parts]
    for encoder in open_encoders(options, {name for name, _ in mine}):
        for source in (sources[i] for name, i in mine if name == encoder.name):
            if options.shards:
                path, embeddings = embed_shards(
                    encoder, source, options.out, options.overwrite, options.dtype
                )
            else:
                path = array_path(encoder, source.name, options.out, options.dtype)
                embeddings = embed(
                    encoder, source, options.out, options.overwrite, dtype=options.dtype
                )
            print(f"{path}: {embeddings.shape[0]:,} x {embeddings.shape[1]} {embeddings.dtype}")
