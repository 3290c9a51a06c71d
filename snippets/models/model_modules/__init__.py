"""Models in several files: whoever imports this package has imported them all.

A relationship names its target as text and SQLAlchemy looks it up among the imported classes.
"""

from snippets.models.model_modules.consignees import Consignee
from snippets.models.model_modules.consignments import Consignment

__all__ = ["Consignee", "Consignment"]
