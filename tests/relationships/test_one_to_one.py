import pytest
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import joinedload, registry, selectinload
from sqlmodel import Field, Relationship, SQLModel, insert, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.relationships.one_to_one import Passport, Person

TABLES = [Person, Passport]


async def person_with_passport(session: AsyncSession) -> Person:
    session.add(Person(name="Ada", passport=Passport(number="old")))
    await session.commit()
    session.expunge_all()
    return (await session.exec(select(Person).options(joinedload(Person.passport)))).one()


async def test_the_annotation_alone_makes_it_one_object(session: AsyncSession) -> None:
    person = await person_with_passport(session)

    assert isinstance(person.passport, Passport)
    assert person.passport.person_id == person.id
    assert person.passport.person is person


async def test_a_person_without_passport_has_none(session: AsyncSession) -> None:
    session.add(Person(name="Bob"))
    await session.commit()
    session.expunge_all()

    person = (await session.exec(select(Person).options(selectinload(Person.passport)))).one()

    assert person.passport is None


async def test_the_database_refuses_a_second_passport(session: AsyncSession) -> None:
    person = await person_with_passport(session)

    with pytest.raises(IntegrityError):
        await session.exec(insert(Passport).values(person_id=person.id, number="second"))


async def test_replacing_the_passport_is_one_update(
    session: AsyncSession, statements: StatementLog
) -> None:
    person = await person_with_passport(session)
    statements.clear()

    person.passport = Passport(number="new")
    await session.flush()

    assert [text.split()[0] for text in statements.texts] == ["UPDATE"]
    assert (await session.exec(select(Passport.number))).all() == ["new"]


async def test_a_passport_taken_away_is_deleted(session: AsyncSession) -> None:
    person = await person_with_passport(session)

    person.passport = None
    await session.commit()

    assert (await session.exec(select(Passport))).all() == []


async def test_the_passport_goes_with_the_person(session: AsyncSession) -> None:
    person = await person_with_passport(session)

    await session.delete(person)
    await session.commit()

    assert (await session.exec(select(Passport))).all() == []


async def test_without_passive_deletes_a_delete_loads_the_child_first(
    session: AsyncSession, statements: StatementLog
) -> None:
    await person_with_passport(session)
    session.expunge_all()
    person = (await session.exec(select(Person))).one()
    statements.clear()

    await session.delete(person)
    await session.flush()

    assert [text.split()[0] for text in statements.texts] == ["SELECT", "DELETE", "DELETE"]


@pytest.mark.parametrize("annotation", ["Kid | None", "list[Kid]"])
def test_a_quoted_annotation_is_the_name_of_a_class_and_nothing_more(annotation: str) -> None:
    class Isolated(SQLModel, registry=registry()): ...

    class Parent(Isolated, table=True):
        id: int | None = Field(default=None, primary_key=True)
        kids: annotation = Relationship()  # type: ignore[valid-type]

    with pytest.raises(InvalidRequestError, match="When initializing mapper"):
        Parent()
