"""The yardstick for the api: the same requests, served as the usual FastAPI templates do it.

FastAPI with Pydantic models, SQLAlchemy's asynchronous ORM on asyncpg, a session per request by
dependency, redis-py, uvicorn with uvloop and httptools, one worker. Nothing in it is there to make
it slow. It leaves out what our api does besides: bounds on every wait, a lease against an outdated
entry in the cache, a second try after a lost connection, refusing what is more than it can do,
ETags, structured logs with the request's id, secrets that change while it runs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from sqlalchemy import URL, DateTime, Text, func, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# As long as our api keeps an item by default, in seconds.
CACHE_TTL = 60


def secret(variable: str) -> str:
    """Read the file that an environment variable names."""
    return Path(os.environ[variable]).read_text(encoding="utf-8").strip()


engine = create_async_engine(
    URL.create(
        "postgresql+asyncpg",
        username=os.environ["DATABASE_USER"],
        password=secret("DATABASE_PASSWORD_FILE"),
        host=os.environ["DATABASE_HOST"],
        database=os.environ["DATABASE_NAME"],
    ),
    # The same bound as ours.
    pool_size=int(os.environ["DATABASE_POOL_SIZE"]),
    max_overflow=0,
    connect_args={"ssl": False},
)
sessions = async_sessionmaker(engine, expire_on_commit=False)
redis = Redis(
    host=os.environ["CACHE_HOST"],
    username=os.environ["CACHE_USER"],
    password=secret("CACHE_PASSWORD_FILE"),
)


class Base(DeclarativeBase):
    """What SQLAlchemy's models derive from."""


class Item(Base):
    """A row; bench/seed.sql makes the table, as a migration would."""

    __tablename__ = "reference_items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    note: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class ItemIn(BaseModel):
    """What a client may say about an item."""

    name: str = Field(min_length=1, max_length=200)
    note: str | None = Field(default=None, max_length=2000)


class ItemOut(BaseModel):
    """An item as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    note: str | None
    created_at: datetime
    updated_at: datetime


async def get_session() -> AsyncIterator[AsyncSession]:
    """Give a request a session of its own; it takes a connection at its first statement."""
    async with sessions() as session:
        yield session


async def get_cache() -> Redis:
    """Give a request the client that all share."""
    return redis


Session = Annotated[AsyncSession, Depends(get_session)]
Cache = Annotated[Redis, Depends(get_cache)]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Close all connections at the end."""
    yield
    await redis.aclose()
    await engine.dispose()


app = FastAPI(title="Reference", lifespan=lifespan)


@app.get("/health")
async def health(session: Session, cache: Cache) -> dict[str, str]:
    """Answer when database and cache do."""
    await session.execute(text("SELECT 1"))
    await cache.ping()
    return {"status": "ok"}


@app.get("/items/{item_id}")
async def read_item(item_id: int, session: Session, cache: Cache, response: Response) -> ItemOut:
    """Return an item from the cache, else from the database."""
    key = f"item:reference:{item_id}"
    cached = await cache.get(key)
    if cached is not None:
        response.headers["X-Source"] = "cache"
        return ItemOut.model_validate_json(cached)
    row = await session.get(Item, item_id)
    if row is None:
        raise HTTPException(status_code=404, detail="Item not found")
    item = ItemOut.model_validate(row)
    await cache.set(key, item.model_dump_json(), ex=CACHE_TTL)
    response.headers["X-Source"] = "database"
    return item


@app.post("/items", status_code=201)
async def create_item(draft: ItemIn, session: Session) -> ItemOut:
    """Store a new item."""
    row = Item(**draft.model_dump())
    session.add(row)
    # The INSERT returns what the database fills in, so that no SELECT has to follow.
    await session.commit()
    return ItemOut.model_validate(row)


app.mount("/page", StaticFiles(directory="/srv/page", html=True), name="page")
