import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.util import CommandError
from migrations.project import Project
from sqlalchemy import URL

from snippets.migrations.many_heads import (
    ManyHeadsError,
    merge_heads,
    single_head,
    squash,
)
from snippets.models.constraints import NAMING_CONVENTION

METADATA = sa.MetaData(naming_convention=NAMING_CONVENTION)
sa.Table(
    "adjuster",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(20)),
    sa.Column("phone", sa.String(20)),
)
FIRST = """
op.create_table(
    "adjuster",
    sa.Column("id", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_adjuster")),
)
"""


@pytest.fixture
def project(tmp_path: Path, database_url: URL) -> Project:
    """Two branches, as two people write them on the same day."""
    project = Project(tmp_path, database_url, METADATA)
    project.revision("first", FIRST, 'op.drop_table("adjuster")')
    for name in ("name", "phone"):
        column = f'sa.Column("{name}", sa.String(20), server_default="-")'
        project.revision(
            name,
            f'op.add_column("adjuster", {column})',
            f'op.drop_column("adjuster", "{name}")',
            down="first",
        )
    return project


async def test_two_heads_are_found_before_alembic_stumbles(project: Project) -> None:
    with pytest.raises(ManyHeadsError, match=r"^expected one head, got name, phone; run: alembic"):
        single_head(project.config)

    with pytest.raises(CommandError, match=r"^Multiple head revisions are present for given arg"):
        await project.upgrade()


async def test_branches_are_merged_with_rows_in_the_table(project: Project) -> None:
    await project.upgrade("name")
    await project.execute("INSERT INTO adjuster (id, name) VALUES (1, 'Ann')")

    merged = merge_heads(project.config)
    await project.upgrade()

    assert single_head(project.config) == merged
    assert await project.current() == {merged}
    assert await project.table("adjuster") == [(1, "Ann", "-")]

    with pytest.raises(CommandError, match=r"^Ambiguous walk$"):
        await project.downgrade()
    await project.downgrade("phone")  # the merge alone
    assert await project.current() == {"name", "phone"}
    await project.downgrade("phone@first")
    assert await project.table("adjuster") == [(1, "Ann")]


async def test_one_head_has_nothing_to_merge(project: Project) -> None:
    merge_heads(project.config)

    with pytest.raises(ManyHeadsError, match=r"^there is nothing to merge$"):
        merge_heads(project.config)


async def test_a_squash_is_not_noticed_by_a_full_database_and_serves_an_empty_one(
    project: Project,
) -> None:
    head = merge_heads(project.config)
    replaced = await asyncio.to_thread(squash, project.config)  # the database is empty

    assert len(replaced) == 4
    (file,) = project.versions.glob("*.py")
    assert single_head(project.config) == head
    await project.upgrade()
    await project.run("check")
    await project.execute("INSERT INTO adjuster VALUES (1, 'Ann', '1')")
    # A database that was at the old head is where this one is now.
    await project.upgrade()
    assert await project.current() == {head}
    assert await project.table("adjuster") == [(1, "Ann", "1")]
    assert "down_revision: str | Sequence[str] | None = None" in file.read_text()


async def test_after_a_squash_an_older_database_is_lost(project: Project) -> None:
    merge_heads(project.config)
    await asyncio.to_thread(squash, project.config)
    await project.upgrade()
    await project.execute("UPDATE alembic_version SET version_num = 'first'")

    with pytest.raises(CommandError, match="Can't locate revision identified by 'first'"):
        await project.upgrade()


async def test_a_squash_that_fails_keeps_the_old_files(project: Project) -> None:
    merge_heads(project.config)
    files = set(project.versions.glob("*.py"))
    await project.upgrade()  # not empty: Alembic refuses a database that is not at this base

    with pytest.raises(CommandError):
        await asyncio.to_thread(squash, project.config)

    assert set(project.versions.glob("*.py")) == files
