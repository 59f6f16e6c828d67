"""Write embeddings and their manifests."""

import argparse

from evaluate.commands import flags
from evaluate.commands.inputs import distinct_benchmarks


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoders_and_benchmarks(command)
    flags.network(command)
    flags.overwrite(command)
    flags.results(command)


def run(options: argparse.Namespace) -> None:
    """Write the embeddings of every encoder on every benchmark."""
    from evaluate.embed import embed
    from evaluate.encoders import open_encoders

    benchmarks = [benchmark for _, benchmark in distinct_benchmarks(options.benchmark)]
    for encoder in open_encoders(options.encoder, options.seed, options.batch, options.precision):
        for benchmark in benchmarks:
            vectors = embed(encoder, benchmark, options.out, options.overwrite)
            path = options.out / "embeddings" / encoder.name / f"{benchmark.name}.npy"
            print(f"{path}: {vectors.shape[0]:,} x {vectors.shape[1]} float32")
