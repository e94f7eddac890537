from .listening import Listening, listen
from .listening_page import save_listenings
from .writing import report

__all__ = ["Listening", "listen", "report", "save_listenings"]
