"""Add a hero and show all of them: a module that is run, with the name and perhaps the power."""

import argparse
import asyncio

from app.database.session import run_to_end, session_factory, session_scope
from app.database.settings import DatabaseSettings, engine_from_settings
from app.heroes import HeroService
from app.models import HeroCreate


async def add_hero(data: HeroCreate, database: DatabaseSettings) -> list[str]:
    """Return the names of all heroes, the new one among them."""
    engine = engine_from_settings(database)
    try:
        async with session_scope(session_factory(engine)) as session:
            heroes = HeroService(session)
            await heroes.create(data)
            return [hero.name for hero in await heroes.list(order_by="name")]
    finally:
        await run_to_end(engine.dispose())


def main() -> None:
    parser = argparse.ArgumentParser(description="Add a hero and show all of them.")
    parser.add_argument("name")
    parser.add_argument("power", nargs="?")
    data = HeroCreate.model_validate(vars(parser.parse_args()))
    names = asyncio.run(add_hero(data, DatabaseSettings()))  # type: ignore[call-arg]
    print("\n".join(names))


if __name__ == "__main__":
    main()
