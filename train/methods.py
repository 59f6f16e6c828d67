"""The methods by their settings."""

from train.config import Config, DinoConfig, MocoConfig
from train.dino import DINO
from train.method import Method
from train.moco import MoCo

METHODS: dict[type[Config], type[Method]] = {MocoConfig: MoCo, DinoConfig: DINO}


def build_model(config: Config) -> Method:
    """Build the networks; their weights are a function of the seed alone."""
    return METHODS[type(config)].build(config)
