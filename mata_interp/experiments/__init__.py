"""Resumable runs of conditions over items, and the study that chooses, measures and tests."""

from ..execution import RayWorkers
from ..execution.notices import RunWarning
from .conditions import Condition, Role
from .effects import Comparison, ComparisonResult, Effects
from .forecast import Forecast, forecast
from .item_recordings import ItemRecordings, load_recordings
from .recording import record_items
from .reliance import text_dominance_by, text_dominance_of, text_prior_of
from .results import Run, load_run
from .run import run
from .stage_forecast import StageForecast, StudyForecast
from .study import study
from .study_forecast import forecast_study
from .study_result import StudyResult

__all__ = [
    "Comparison",
    "ComparisonResult",
    "Condition",
    "Effects",
    "Forecast",
    "ItemRecordings",
    "RayWorkers",
    "Role",
    "Run",
    "RunWarning",
    "StageForecast",
    "StudyForecast",
    "StudyResult",
    "forecast",
    "forecast_study",
    "load_recordings",
    "load_run",
    "record_items",
    "run",
    "study",
    "text_dominance_by",
    "text_dominance_of",
    "text_prior_of",
]
