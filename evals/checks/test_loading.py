import pytest
import queries
from library import Author, Book, Review
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture(autouse=True)
async def rows(sessions: Sessions) -> None:
    async with sessions() as session:
        for name in ("Cy", "Ann", "Bob"):
            author = Author(name=name)
            session.add(author)
            for number in range(3):
                genre = "poem" if name != "Bob" and number < 2 else "novel"
                book = Book(title=f"{name} {number}", genre=genre, author=author)
                book.reviews = [Review(stars=number), Review(stars=5)]
                session.add(book)
        session.add(Author(name="Dora"))
        await session.commit()


async def test_everything_is_readable_after_close(
    sessions: Sessions, statements: StatementLog
) -> None:
    async with sessions() as session:
        authors = await queries.authors_with_books_and_reviews(session)
    assert [author.name for author in authors] == ["Ann", "Bob", "Cy", "Dora"]
    assert [len(author.books) for author in authors] == [3, 3, 3, 0]
    assert all(len(book.reviews) == 2 for author in authors for book in author.books)
    assert statements.count <= 3


async def test_books_know_their_author(sessions: Sessions, statements: StatementLog) -> None:
    async with sessions() as session:
        books = await queries.books_with_author(session)
    assert [book.title for book in books][:4] == ["Ann 0", "Ann 1", "Ann 2", "Bob 0"]
    assert [book.author.name for book in books] == ["Ann"] * 3 + ["Bob"] * 3 + ["Cy"] * 3
    assert statements.count <= 2


async def test_limit_counts_authors(sessions: Sessions, statements: StatementLog) -> None:
    async with sessions() as session:
        authors = await queries.first_authors(session, 2)
    assert [(author.name, len(author.books)) for author in authors] == [("Ann", 3), ("Bob", 3)]
    assert statements.count <= 2


async def test_filter_keeps_all_books(sessions: Sessions, statements: StatementLog) -> None:
    async with sessions() as session:
        authors = await queries.authors_of_genre(session, "poem")
    assert [(author.name, len(author.books)) for author in authors] == [("Ann", 3), ("Cy", 3)]
    assert statements.count <= 2


async def test_new_rows_are_seen_by_a_session_that_knows_the_authors(sessions: Sessions) -> None:
    async with sessions() as session:
        before = await queries.authors_of_genre(session, "poem")
        await session.commit()
        async with sessions() as other:
            other.add(Book(title="new", genre="poem", author_id=before[0].id))
            await other.commit()
        authors = await queries.authors_of_genre(session, "poem")
    assert [(author.name, len(author.books)) for author in authors] == [("Ann", 4), ("Cy", 3)]


async def test_delete_takes_what_belongs_to_it(sessions: Sessions) -> None:
    async with sessions() as session:
        ann = (await session.exec(select(Author).where(Author.name == "Ann"))).one()
        await queries.delete_author(session, ann.id)
        await session.commit()
    async with sessions() as session:
        assert len((await session.exec(select(Book))).all()) == 6
        assert len((await session.exec(select(Review))).all()) == 12
        assert len((await session.exec(select(Author))).all()) == 3


async def test_delete_loads_no_books_and_no_reviews(
    sessions: Sessions, statements: StatementLog
) -> None:
    async with sessions() as session:
        author_id = (await session.exec(select(Author.id).where(Author.name == "Ann"))).one()
    seen: list[object] = []

    def note(target: object, _context: object) -> None:
        seen.append(target)

    statements.clear()
    for model in (Book, Review):
        event.listen(model, "load", note)
    try:
        async with sessions() as session:
            await queries.delete_author(session, author_id)
            await session.commit()
    finally:
        for model in (Book, Review):
            event.remove(model, "load", note)
    assert seen == []
    assert statements.count <= 5
