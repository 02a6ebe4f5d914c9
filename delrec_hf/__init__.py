"""DELRec on the Hugging Face stack: a recommender distilled into a language model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delrec_hf.modeling.stacked import DelRecModel
    from delrec_hf.recommender import Recommender

__version__ = "0.1.0"
__all__ = ["DelRecModel", "Recommender", "__version__"]

_LAZY = {"DelRecModel": "delrec_hf.modeling.stacked", "Recommender": "delrec_hf.recommender"}


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import; `delrec --help` must not wait for them.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module `delrec_hf` has no attribute `{name}`")
