"""What a classifier says of nuclei: a class each, or none where it is not sure enough."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from evaluate.classes.classifier import Classifier

NONE = "unclassified"  # of counts; in files a nucleus without a class has none


@dataclass(frozen=True, eq=False)
class Calls:
    """The probabilities of N nuclei, and from which on they are called."""

    classifier: Classifier
    probabilities: np.ndarray  # (N, K) float32
    least: float = 0.0  # probability below which a nucleus stays without a class

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) str, '' for nuclei that are not called."""
        names = np.array(self.classifier.classes, np.str_)[self.probabilities.argmax(axis=1)]
        return np.where(self.probability >= self.least, names, "")

    @cached_property
    def probability(self) -> np.ndarray:
        """(N,) float32, of the likeliest class, whether it is called or not."""
        return self.probabilities.max(axis=1)

    def counts(self) -> dict[str, int]:
        """Return how many nuclei are of each class, then how many of none."""
        labels = self.labels
        found = {name: int((labels == name).sum()) for name in self.classifier.classes}
        return found | {NONE: int((labels == "").sum())}

    def columns(self) -> dict[str, np.ndarray]:
        """Return class and probability, to stand in tables."""
        return {"class": self.labels, "probability": self.probability}

    def each(self) -> dict[str, np.ndarray]:
        """Return `probability <class>` -> (N,) float32."""
        named = zip(self.classifier.classes, self.probabilities.T, strict=True)
        return {f"probability {name}": column for name, column in named}

    def arrow(self) -> dict[str, pa.Array]:
        """Return class (null where there is none), probability, and those of each class."""
        labels = pa.array(self.labels, pa.string(), mask=self.labels == "")
        numbers = {"probability": self.probability} | self.each()
        return {"class": labels} | {name: pa.array(column) for name, column in numbers.items()}


def call(classifier: Classifier, embeddings: np.ndarray, least: float = 0.0) -> Calls:
    """Classify (N, D) embeddings; errors as of `Classifier.probabilities`."""
    return Calls(classifier, classifier.probabilities(embeddings), least)
