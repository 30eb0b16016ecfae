"""Street photos drawn from a seed, with exact boxes and masks: data whose truth is known by construction."""

from pipeline.synthetic.canvas import BUILDING_PARTS, NAMES
from pipeline.synthetic.dataset import write_dataset
from pipeline.synthetic.drawing import Drawing, DrawnBox, DrawnBuilding, draw

__all__ = ["BUILDING_PARTS", "NAMES", "Drawing", "DrawnBox", "DrawnBuilding", "draw", "write_dataset"]
