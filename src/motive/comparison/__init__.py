"""Which selection makes better motion: any set of selections through fine-tune, generate and evaluate.

from motive.comparison import compare, read_spec

compare(read_spec(Path("comparison.yaml")), Path("runs/comparison"))
"""

from motive.comparison.compare import Comparison, compare
from motive.comparison.spec import Spec, read_spec

__all__ = ["Comparison", "Spec", "compare", "read_spec"]
