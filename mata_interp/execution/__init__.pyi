from .batches import Measure, batch_identity, measure_batches
from .parts import MeasuredBatch, Output, refuse_other_work
from .ray_backend import RayWorkers, open_cluster
from .units import Store, Unit, Work

__all__ = [
    "Measure",
    "MeasuredBatch",
    "Output",
    "RayWorkers",
    "Store",
    "Unit",
    "Work",
    "batch_identity",
    "measure_batches",
    "open_cluster",
    "refuse_other_work",
]
