"""The service of heroes: all that the application does with them."""

from typing import ClassVar

from app.models import Hero, HeroCreate, HeroUpdate
from app.services.service import ServiceBase


class HeroService(ServiceBase[Hero, HeroCreate, HeroUpdate]):
    # What strangers may filter and sort by, in URLs for example; all else is refused.
    filterable: ClassVar = {
        "name": {"eq", "icontains", "in"},
        "power": {"eq", "is_null"},
        "created_at": {"gte", "lt"},
    }
    sortable = ("name", "created_at")
