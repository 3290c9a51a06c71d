from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.relationships.several_foreign_keys import Club, Fixture

TABLES = [Club, Fixture]


async def test_each_side_of_a_fixture_goes_its_own_way(
    session: AsyncSession, statements: StatementLog
) -> None:
    reds, blues = Club(name="reds"), Club(name="blues")
    session.add(Fixture(home_club=reds, away_club=blues))
    await session.commit()
    session.expunge_all()
    statements.clear()

    both = joinedload(Fixture.home_club, innerjoin=True), joinedload(Fixture.away_club)
    fixture = (await session.exec(select(Fixture).options(*both))).one()

    assert (fixture.home_club.name, fixture.away_club.name) == ("reds", "blues")
    assert statements.count == 1


async def test_home_and_away_fixtures_of_a_club_are_apart(session: AsyncSession) -> None:
    reds, blues = Club(name="reds"), Club(name="blues")
    first, second = Fixture(home_club=reds, away_club=blues), Fixture()
    second.home_club, second.away_club = blues, reds
    session.add_all([first, second])
    await session.commit()
    session.expunge_all()

    load = selectinload(Club.home_fixtures), selectinload(Club.away_fixtures)
    clubs = (await session.exec(select(Club).where(Club.name == "reds").options(*load))).one()

    assert [fixture.id for fixture in clubs.home_fixtures] == [first.id]
    assert [fixture.id for fixture in clubs.away_fixtures] == [second.id]
