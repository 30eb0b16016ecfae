"""Street photos drawn from a seed, with exact boxes and masks: data whose truth is known by construction."""

from pipeline.datasets.synthetic.canvas import BUILDING_PARTS, NAMES
from pipeline.datasets.synthetic.dataset import write_dataset
from pipeline.datasets.synthetic.scene import Scene, SyntheticBox, SyntheticBuilding, draw_scene

__all__ = ["BUILDING_PARTS", "NAMES", "Scene", "SyntheticBox", "SyntheticBuilding", "draw_scene", "write_dataset"]
