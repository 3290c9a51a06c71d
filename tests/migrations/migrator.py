"""A process that starts, migrates, and says what it saw: several run at once in the tests."""

import asyncio
import logging
import sys

from sqlalchemy import MetaData, make_url

from snippets.migrations.programmatic import config_for, upgrade_database


class Steps(logging.Handler):
    """Counts the migrations that this process ran."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Running upgrade"):
            print("ran", record.args and str(record.args), flush=True)


def main(script_location: str, url: str) -> None:
    log = logging.getLogger("alembic.runtime.migration")
    log.setLevel(logging.INFO)
    log.addHandler(Steps())
    config = config_for(script_location, make_url(url))
    config.attributes |= {"metadata": MetaData(), "options": {}}
    asyncio.run(upgrade_database(config, wait=60))
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
