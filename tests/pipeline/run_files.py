"""Files of `facade run` for sets that are drawn in seconds: all stages, none for long."""


def run_toml(work: str = "work", batch: int = 16) -> str:
    """The file of a run over `set`, described by `card.toml`, with one epoch of the smallest network."""
    return f"""\
work = "{work}"

[[datasets]]
card = "card.toml"
root = "set"

[extract]
previews = 0

[train]
preset = "demo"
priors = "paper_coco"
epochs = 1
batch = {batch}
device = "cpu"

[evaluate]
bootstrap_samples = 0
previews = 0
"""
