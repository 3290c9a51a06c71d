from pathlib import Path

import pytest
from migrations.project import Project
from sqlalchemy import URL


@pytest.fixture
def project(tmp_path: Path, database_url: URL) -> Project:
    return Project(tmp_path, database_url)
