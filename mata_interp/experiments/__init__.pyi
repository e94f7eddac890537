from .conditions import Condition, Role
from .crossfit_result import CrossfitResult
from .effects import Comparison, ComparisonResult, Effects
from .item_recordings import ItemRecordings, load_recordings
from .method_forecast import forecast_method
from .method_study import MethodChoice, MethodStudy, study_method
from .pilot import StudyPlan, plan_study
from .recording import record_items
from .registration import Registration, preregister
from .registration_check import RegistrationCheck
from .reliance import text_dominance_by, text_dominance_of, text_prior_of
from .repeat_result import RepeatResult
from .repeated_items import reorder_options, repeat_items
from .results import Run, load_run
from .run_conditions import run
from .run_forecast import Forecast, forecast
from .run_study import study
from .stage_forecast import StageForecast, StudyForecast
from .study_forecast import forecast_study
from .study_result import StudyResult

__all__ = [
    "Comparison",
    "ComparisonResult",
    "Condition",
    "CrossfitResult",
    "Effects",
    "Forecast",
    "ItemRecordings",
    "MethodChoice",
    "MethodStudy",
    "Registration",
    "RegistrationCheck",
    "RepeatResult",
    "Role",
    "Run",
    "StageForecast",
    "StudyForecast",
    "StudyPlan",
    "StudyResult",
    "forecast",
    "forecast_method",
    "forecast_study",
    "load_recordings",
    "load_run",
    "plan_study",
    "preregister",
    "record_items",
    "reorder_options",
    "repeat_items",
    "run",
    "study",
    "study_method",
    "text_dominance_by",
    "text_dominance_of",
    "text_prior_of",
]
